"""What the kernel says of processes: who lives, since when, below whom, in which group and with which mark.

Two tables tell the same: :class:`Procfs` reads Linux's ``/proc``, :class:`Portable` asks psutil. :func:`table` gives
the best one of this machine.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from caseexec.errors import Owner

__all__ = [
    "MARK",
    "Identity",
    "Moment",
    "Portable",
    "ProcessTable",
    "Procfs",
    "Status",
    "describe",
    "holders",
    "marker",
    "table",
    "tree",
    "user_name",
]

MARK = "CASEEXEC_MARK"
"""The environment variable that a service and all its descendants carry; always compared whole."""

# Numbers tried one by one, where that is cheaper than to list every process of the machine.
_FEW = 400


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same pid. ``born`` is only good to compare."""

    pid: int
    born: float


class Status(NamedTuple):
    """What a look at one process shows."""

    identity: Identity
    parent: int
    group: int
    zombie: bool


class Moment(NamedTuple):
    """A point in the machine's life, to ask later which processes appeared since."""

    last_pid: int
    forks: int
    born: float


class ProcessTable(Protocol):
    """What caseexec asks of the operating system."""

    def status(self, pid: int) -> Status | None:
        """Look at a process; ``None`` when there is none."""

    def mark(self, pid: int) -> str | None:
        """The whole value of :data:`MARK` in a process's environment; ``None`` without one, or if it can't be read.

        Empty when the environment is: it is so for a moment, while the kernel loads a program.
        """

    def holds_mark(self, pid: int, mark: str) -> bool:
        """Whether a process has the descriptor of :func:`marker` open; ``False`` when that can't be seen."""

    def children(self, pid: int) -> list[int]:
        """The processes whose parent is *pid*."""

    def moment(self) -> Moment:
        """Now."""

    def since(self, moment: Moment) -> Iterable[int]:
        """The pids that may have appeared since *moment*; every one that did is among them."""

    def everybody(self) -> Iterable[int]:
        """Every pid."""

    def holds_socket(self, pid: int, inode: int) -> bool:
        """Whether a process has a socket open; ``False`` when that can't be seen."""

    def send(self, identity: Identity, number: int) -> bool:
        """Send a signal to this very process, never to a later one with its pid; ``False``: it is gone, or not ours."""


def marker(mark: str) -> int | None:
    """A descriptor whose name is the mark, to be inherited, where there is such a thing (memfd_create(2)).

    Programs that set their title, as Redis and nginx, overwrite their environment; few close what they inherited.
    """
    try:
        return os.memfd_create(_marker_name(mark))
    except (AttributeError, OSError):
        return None


def _marker_name(mark: str) -> str:
    return f"{MARK}={mark}"


@functools.cache
def table() -> ProcessTable:
    """The process table of this machine."""
    return Procfs() if sys.platform == "linux" and os.path.exists("/proc/self/stat") else Portable()


def tree(processes: ProcessTable, root: int) -> Iterator[int]:
    """Every descendant of *root* that is still connected to it, parents first."""
    waiting = [root]
    for pid in waiting:
        children = processes.children(pid)
        yield from children
        waiting += children


def describe(pid: int) -> Owner:
    """Say who a process is, as far as it can be seen."""
    import psutil

    def ask(question: str) -> Any:
        try:
            return getattr(psutil.Process(pid), question)()
        except psutil.Error:
            return None

    command = " ".join(ask("cmdline") or [ask("name") or ""])
    return Owner(pid=pid, command=command, user=ask("username") or "")


def holders(processes: ProcessTable, inode: int | None, pid: int | None) -> Iterator[int]:
    """Who has a socket open: *pid*, when the system told it, else all whose descriptors we may see."""
    if pid is not None:
        yield pid
    elif inode:
        yield from (pid for pid in processes.everybody() if processes.holds_socket(pid, inode))


def user_name(uid: int | None) -> str:
    """The name of a user; empty when unknown."""
    import pwd

    try:
        return "" if uid is None else pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Procfs:
    """Linux: ``/proc``, read directly (about 6 µs a process, where psutil needs 60 to 100)."""

    def status(self, pid: int) -> Status | None:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                # The name may hold blanks and parentheses; the fields begin after the last one.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        # Of a process whose main thread has ended before the others, too, the state is said to be Z.
        zombie = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
        return Status(Identity(pid, int(fields[19])), int(fields[1]), int(fields[2]), zombie)

    def mark(self, pid: int) -> str | None:
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                environment = file.readall() or b""
        except OSError:
            return None
        if not environment:
            return ""
        name = MARK.encode() + b"="
        # Searched for in one piece first: splitting every environment of the machine would cost more than reading it.
        if name not in environment:
            return None
        for entry in environment.split(b"\0"):
            if entry.startswith(name):
                return entry[len(name) :].decode(errors="replace")
        return None

    def children(self, pid: int) -> list[int]:
        found: list[int] = []
        for task in _listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                    found += map(int, file.read().split())
            except OSError:
                if not self._lists_children:
                    return self._children_by_listing(pid)
        return found

    @functools.cached_property
    def _lists_children(self) -> bool:
        own = os.getpid()
        return os.path.exists(f"/proc/{own}/task/{own}/children")  # A kernel option, CONFIG_PROC_CHILDREN.

    def _children_by_listing(self, pid: int) -> list[int]:
        everybody = ((other, self.status(other)) for other in self.everybody())
        return [other for other, status in everybody if status and status.parent == pid]

    def moment(self) -> Moment:
        forks = self._forks()  # Before the pid: what is forked between the two must not hide a wrap.
        return Moment(self._last_pid(), forks, 0)

    def _last_pid(self) -> int:
        with open("/proc/loadavg", "rb") as file:
            return int(file.read().split()[-1])

    def _forks(self) -> int:
        with open("/proc/stat", "rb") as file:
            for line in file:
                if line.startswith(b"processes "):
                    return int(line.split()[1])
        return sys.maxsize

    def since(self, moment: Moment) -> Iterable[int]:
        # Linux hands out pids in ascending order and begins again at the top. While it has not, those that appeared
        # are the numbers behind the one that was the last; the count of forks tells whether it has.
        last = self._last_pid()
        new = last - moment.last_pid
        if new < 0 or self._forks() - moment.forks > new + 64:
            return self.everybody()
        if new > _FEW:
            return [pid for pid in self.everybody() if moment.last_pid < pid <= last]
        return [pid for pid in range(moment.last_pid + 1, last + 1) if self._is_process(pid)]

    def _is_process(self, pid: int) -> bool:
        # Threads have numbers too, and /proc/<tid> can be opened although it is not listed.
        try:
            with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
                return b"\nTgid:\t%d\n" % pid in file.read(1024)
        except OSError:
            return False

    def everybody(self) -> Iterable[int]:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]

    def holds_socket(self, pid: int, inode: int) -> bool:
        return self._holds(pid, f"socket:[{inode}]")

    def holds_mark(self, pid: int, mark: str) -> bool:
        return self._holds(pid, f"/memfd:{_marker_name(mark)} (deleted)")

    def _holds(self, pid: int, wanted: str) -> bool:
        for fd in _listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{fd}") == wanted:
                    return True
            except OSError:
                continue
        return False

    def send(self, identity: Identity, number: int) -> bool:
        try:
            fd = os.pidfd_open(identity.pid)
        except OSError:  # Gone, or a kernel before 5.3.
            return False if self.status(identity.pid) is None else _send_by_pid(self, identity, number)
        try:
            # The descriptor is of one process for good: looked at after it was opened, it is the one we mean.
            status = self.status(identity.pid)
            if status is None or status.identity != identity:
                return False
            signal.pidfd_send_signal(fd, number)
            return True
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(fd)


class Portable:
    """Any POSIX system, through psutil; slower, and the cost grows with the number of processes."""

    def status(self, pid: int) -> Status | None:
        import psutil

        try:
            process = psutil.Process(pid)
            with process.oneshot():
                zombie = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
                return Status(Identity(pid, process.create_time()), process.ppid(), os.getpgid(pid), zombie)
        except (psutil.Error, OSError):
            return None

    def mark(self, pid: int) -> str | None:
        import psutil

        try:
            environment = psutil.Process(pid).environ()
            return environment.get(MARK) if environment else ""
        except (psutil.Error, OSError):
            return None

    def children(self, pid: int) -> list[int]:
        import psutil

        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            return []

    def moment(self) -> Moment:
        import time

        # Process start times are wall-clock here; they are rounded, so a second too early is early enough.
        return Moment(0, 0, time.time() - 1)

    def since(self, moment: Moment) -> Iterable[int]:
        import psutil

        found = psutil.process_iter(["create_time"])
        return [process.pid for process in found if (process.info["create_time"] or 0) >= moment.born]

    def everybody(self) -> Iterable[int]:
        import psutil

        return psutil.pids()

    def holds_socket(self, pid: int, inode: int) -> bool:
        return False

    def holds_mark(self, pid: int, mark: str) -> bool:
        return False

    def send(self, identity: Identity, number: int) -> bool:
        return _send_by_pid(self, identity, number)


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _send_by_pid(processes: ProcessTable, identity: Identity, number: int) -> bool:
    status = processes.status(identity.pid)
    if status is None or status.identity != identity:
        return False
    try:
        os.kill(identity.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
