"""When a PostgreSQL is ready, and who has its data directory."""

from __future__ import annotations

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
        return f"data directory {self.path}"

    def check(self, target: Target, /) -> None:
        # Each question would cost the server a process, while it is busy with its start.
        lines = self._pid_file()
        if len(lines) <= _STATUS or lines[_STATUS].strip() != "ready":
            raise NotReady("it has not said that it is ready (postmaster.pid)")

    def occupant(self) -> Owner | None:
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].isdecimal() else 0
        status = processes.table().status(pid) if pid else None
        return None if status is None or status.zombie else record.owner(pid)

    def thief(self) -> Owner | None:
        return self.occupant()

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
