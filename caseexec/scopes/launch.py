"""One life of a declaration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from caseexec import ports, registry
from caseexec.errors import AlreadyRunning, ExecutorError
from caseexec.executors import Declared, Executor
from caseexec.executors.fate import Cancelled
from caseexec.scopes.keeping import keeping
from caseexec.scopes.logs import Log
from caseexec.scopes.outside import existing
from caseexec.service import Service

__all__ = ["Launch"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# How often a leased port that was lost to somebody else is leased anew.
_LEASES = 3


class Launch:
    """One life of a declaration, from the lease of its port to the removal of its directory and log.

    :param test_class: the class that declares it, or the first of those that share it.
    :param attribute: the attribute that it is; empty for the service of a single-service mixin.
    :ivar executor: its executor, once it was to start; the same when the service is started again.
    """

    def __init__(self, service: Service[Any], test_class: str, attribute: str = "") -> None:
        self.service = service
        self.executor: Executor | None = None
        self.declared = Declared(test_class=test_class, attribute=attribute)
        self._run = registry.current_run()
        self._ports: list[int] = []
        self._tmp: str | None = None
        self._log = Log(self._run, self.declared)
        self._cancelled = False

    def start(self, others: Mapping[str, str] = MappingProxyType({})) -> Executor:
        """Start it and wait until it is ready. A leased port that somebody else was faster to take is leased anew.

        :param others: what the placeholders of other services stand for.
        :raises ExecutorError: as :meth:`caseexec.executors.Executor.start`; nothing but the log is left then.
        """
        try:
            for attempt in range(_LEASES + 1):
                executor = self._prepare(others)
                try:
                    return executor.start()
                except AlreadyRunning as error:
                    if self.service.port != 0 or attempt == _LEASES or not error.place.startswith("port"):
                        raise
                    self._give_back_directory()
            raise AssertionError("unreachable")
        except BaseException as error:
            if isinstance(error, ExecutorError):  # It names the log.
                self.keep_log()
            self.discard()
            raise

    def _prepare(self, others: Mapping[str, str]) -> Executor:
        if self._cancelled:
            raise Cancelled(self.declared.who)
        there = existing(self.service, self.declared.attribute or "service")
        service = there.service if there else self.service
        port = service.lease()
        if port is not None and service.port == 0:
            # A lost port is kept until the end, so that it is not leased again.
            self._ports.append(port)
        self._tmp = self._run.make_directory(service.tmp_owner(), service.tmp_parent())
        declared = replace(self.declared, port=port, tmp=self._tmp, others=others, log=self._log.begin())
        self.executor = service.executor(declared)
        self.executor.existing = there.by if there else ""
        if self._cancelled:
            self.executor.cancel()
        return self.executor

    def cancel(self) -> None:
        """Have a :meth:`start` that is under way in another thread raise soon."""
        self._cancelled = True
        if self.executor is not None:
            self.executor.cancel()

    def keep_log(self) -> None:
        """Let the log stay when all else goes."""
        self._log.stays = True

    def has_log(self) -> bool:
        """Whether something was written."""
        return not self._log.is_empty()

    def stop(self) -> None:
        """Stop it and give everything back.

        :raises ProcessFinishedWithError: its exit status is neither 0 nor what a stop leads to.
        """
        try:
            if self.executor is not None and not self.executor.existing:
                self.executor.stop()
        except ExecutorError:
            self.keep_log()
            raise
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
        if self.executor is not None and not self.executor.existing:
            self.executor.kill()
        while self._ports:
            ports.release(self._ports.pop())
        self._keep_directory()
        self._give_back_directory()
        self._log.end()

    def _keep_directory(self) -> None:
        path = self._tmp
        with suppress(OSError):  # Whoever owns it may have removed it.
            if keeping.everything and path is not None and os.listdir(path):
                keeping.kept.append((self.declared.who, path))
                self._run.keep(path)
                self._tmp = None

    def _give_back_directory(self) -> None:
        path, self._tmp = self._tmp, None
        if path is not None:
            self._run.remove(path)
