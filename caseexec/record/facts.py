"""What a record tells of a run and its services."""

from __future__ import annotations

from dataclasses import dataclass, field

from caseexec import processes
from caseexec.record import place

__all__ = ["RunRecord", "ServiceRecord"]


@dataclass(frozen=True, kw_only=True)
class ServiceRecord:
    """A running service.

    :ivar mark: the mark that its processes carry.
    :ivar pid: its leader, which is its process group too.
    :ivar born: the leader's start time, only good to compare.
    :ivar service: what it is called.
    :ivar test_class: the test class that uses it; empty for an executor of one's own.
    :ivar since: when it was started, in seconds of the Unix epoch.
    :ivar stop_signal: what asks it to end.
    :ivar stop_command: what is run first when it is stopped, for somebody to read; its environment is not recorded.
    :ivar cgroup: the directory of its cgroup; empty without one.
    :ivar supervised: whether its leader is a supervisor.
    """

    mark: str
    pid: int
    born: float
    service: str = ""
    test_class: str = ""
    command: str = ""
    address: str = ""
    log: str = ""
    since: float = 0
    stop_signal: int = 15
    stop_command: str = ""
    cgroup: str = ""
    supervised: bool = False

    @property
    def leader(self) -> processes.Identity:
        """The leader, for good."""
        return processes.Identity(self.pid, self.born)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, and what it has.

    :ivar id: the run's id: what stands before the last dot of its services' marks.
    :ivar pid: the run's process.
    :ivar born: its start time, only good to compare.
    :ivar system: the machine's present life and process-id namespace; in another one these pids mean nothing.
    :ivar command: its command line.
    :ivar worker: what it is called among the workers of another process (``gw0``); empty: it is nobody's.
    :ivar since: when it started its first service, in seconds of the Unix epoch.
    :ivar means: by which means its processes are found.
    :ivar reaper: the pid of its reaper; ``None`` without one.
    :ivar paths: its temporary directories and logs.
    :ivar where: the directory that the record was found in.
    """

    id: str
    pid: int
    born: float
    system: str
    command: str = ""
    worker: str = ""
    cwd: str = ""
    since: float = 0
    means: tuple[str, ...] = ()
    reaper: int | None = None
    paths: tuple[str, ...] = ()
    services: tuple[ServiceRecord, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def alive(self) -> bool:
        """Whether the run's process lives."""
        own = processes.Identity(self.pid, self.born)
        return self.system == place.system() and not place.has_ended(own, self.system)
