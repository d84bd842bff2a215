"""When a PostgreSQL is ready, and who has its data directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from caseexec import processes, record
from caseexec.deadline import Deadline
from caseexec.errors import Owner
from caseexec.probes import NotReady, Target, TCPProbe, require_ours
from caseexec.probes.base import CONNECT_TIMEOUT, refusal
from caseexec.servers.base import ServerRefused
from caseexec.servers.postgresql.protocol import Session

__all__ = ["DataDirectory", "PostgreSQLProbe"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# The line of postmaster.pid that says "ready" when it is; pg_ctl reads it, too.
_STATUS = 7


@dataclass(frozen=True)
class DataDirectory:
    """A claim on a data directory that outlives the service: only one server can have it."""

    path: str

    def __str__(self) -> str:
        return f"the server of {self.path} to be ready"

    @property
    def place(self) -> str:
        return f"data directory {os.path.realpath(self.path)}"

    def check(self, target: Target, /) -> None:
        # Each question would cost the server a process, while it is busy with its start.
        lines = self._pid_file()
        if len(lines) <= _STATUS or lines[_STATUS].strip() != "ready":
            raise NotReady("it has not said that it is ready (postmaster.pid)")

    def occupant(self) -> Owner | None:
        pid = self._pid()
        return record.owner(pid) if self._is_used_by(pid) else None

    def thief(self) -> Owner | None:
        return self.occupant()

    def forget_dead(self, deadline: Deadline) -> None:
        """Remove what a killed server has left, when another process has its number by now, or it was not waited for.

        The next server would take it for alive, and not start.

        :raises TimeoutError: somebody else was about to do that until the deadline.
        """
        directory = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Two at once, and the second might remove what the server of the first has written.
            with record.locked(directory, deadline):
                pid = self._pid()
                if processes.table().status(pid) is not None and not self._is_used_by(pid):
                    os.unlink(f"{self.path}/postmaster.pid")
        finally:
            os.close(directory)

    def _pid(self) -> int:
        lines = self._pid_file()
        return int(lines[0]) if lines and lines[0].isdecimal() else 0

    def _is_used_by(self, pid: int) -> bool:
        status = processes.table().status(pid)
        if status is None or status.zombie:
            return False
        where = processes.working_directory(pid)  # A server goes there before it writes its number.
        try:
            return where is None or os.path.samefile(where, self.path)
        except OSError:
            return False

    def _pid_file(self) -> list[str]:
        try:
            with open(f"{self.path}/postmaster.pid", errors="replace") as file:
                return file.read().splitlines()
        except OSError:
            return []


@dataclass(frozen=True)
class PostgreSQLProbe(TCPProbe):
    """Ready when it answers a query.

    :param connect: begins a session.
    :param data: its data directory; ``None``: it is not ours.
    """

    connect: Callable[[Deadline], Session] = field(repr=False)
    data: DataDirectory | None

    def __str__(self) -> str:
        return f"PostgreSQL to answer a query at {self.host}:{self.port}"

    def check(self, target: Target, /) -> None:
        if self.data is not None:
            self.data.check(target)
        try:
            with closing(self.connect(target.deadline.within(CONNECT_TIMEOUT))) as session:
                session.query("SELECT 1")
        except ServerRefused as error:
            raise NotReady(str(error)) from error
        except OSError as error:
            raise NotReady(refusal(error)) from error
        require_ours(target, self.host, self.port)
