"""When a running service begins and when it goes."""

from __future__ import annotations

import os

from caseexec import ports, registry
from caseexec.errors import AlreadyRunning
from caseexec.executors import Executor
from caseexec.service import Service

__all__ = ["Launch"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# How often a leased port that was lost to somebody else is leased anew.
_LEASES = 3


class Launch:
    """One life of a declaration, from the lease of its port to the removal of its directory.

    :param name: what errors call the service.
    """

    def __init__(self, service: Service, name: str) -> None:
        self.service = service
        self.name = name
        self.executor: Executor | None = None
        self._run = registry.current_run()
        self._ports: list[int] = []
        self._tmp: str | None = None

    def start(self) -> Executor:
        """Start it and wait until it is ready. A leased port that somebody else was faster to take is leased anew.

        :raises ExecutorError: as :meth:`caseexec.executors.Executor.start`; nothing is left then.
        """
        try:
            for attempt in range(_LEASES + 1):
                self._prepare()
                assert self.executor is not None
                try:
                    return self.executor.start()
                except AlreadyRunning as error:
                    if self.service.port != 0 or attempt == _LEASES or not error.place.startswith("port"):
                        raise
                    self.executor.remove_logs()  # Nobody sees the error that names them.
                    self._give_back_directory()
            raise AssertionError("unreachable")
        except BaseException:
            self.discard()
            raise

    def _prepare(self) -> None:
        port = self.service.lease()
        if port is not None and self.service.port == 0:
            # A lost port is kept until the end, so that it is not leased again.
            self._ports.append(port)
        self._tmp = self._run.make_directory()
        self.executor = self.service.executor(self.name, port, self._tmp)

    def stop(self) -> None:
        """Stop it and give everything back.

        :raises ProcessFinishedWithError: its exit status is neither 0 nor what a stop leads to.
        """
        try:
            if self.executor is not None:
                self.executor.stop()
        finally:
            self._give_back()

    def discard(self) -> list[int]:
        """Stop it without a word, however it ends, and give everything back.

        :returns: the processes that were alive.
        """
        living = self.executor.living() if self.executor is not None else []
        try:
            if self.executor is not None:
                self.executor.discard()
        finally:
            self._give_back()
        return living

    def _give_back(self) -> None:
        if self._run.pid != os.getpid():
            return
        if self.executor is not None:
            self.executor.kill()
        while self._ports:
            ports.release(self._ports.pop())
        self._give_back_directory()

    def _give_back_directory(self) -> None:
        path, self._tmp = self._tmp, None
        if path is not None:
            self._run.remove_directory(path)
