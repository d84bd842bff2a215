"""Linux's process table: ``/proc``, read directly."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from caseexec.processes.base import MARK, Identity, Moment, Status, marker_name, send_by_pid

__all__ = ["Procfs"]

# To try a number at which there is nobody costs about as much as to list this many processes (2.6 and 0.5 µs).
_TRY = 5
# Numbers tried at most: in a container the machine's threads are far more than the processes to be listed.
_MOST = 400
# pidfd_send_signal(2), since Linux 6.9: to the whole group that the process leads.
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2


class Procfs:
    """Linux: ``/proc``, read directly (about 6 µs a process, where psutil needs 60 to 100)."""

    def status(self, pid: int) -> Status | None:
        try:
            # The name may hold blanks and parentheses; the fields begin after the last one.
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # It may well be there: who can't look must not say that it is gone.
            return None
        # Of a process whose main thread has ended before the others, too, the state is said to be Z.
        zombie = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
        return Status(Identity(pid, int(fields[19])), int(fields[1]), int(fields[2]), zombie)

    def mark(self, pid: int) -> str | None:
        try:
            environment = _read(f"/proc/{pid}/environ")
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

    def command(self, pid: int) -> Sequence[str]:
        try:
            found = _read(f"/proc/{pid}/cmdline")
        except OSError:
            return []
        # One that sets its title writes it there in one piece.
        return [word.decode(errors="replace") for word in found.rstrip(b"\0").split(b"\0") if found]

    def children(self, pid: int) -> list[int]:
        found: list[int] = []
        for task in _listdir(f"/proc/{pid}/task"):
            try:
                found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
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
        try:
            return int(_read("/proc/loadavg").split()[-1])
        except FileNotFoundError:  # Only processes are shown there (the mount option "subset=pid").
            return 0

    def _threads(self) -> int:
        """How many there are on the machine; no more processes are listed."""
        return int(_read("/proc/loadavg").split()[-2].rpartition(b"/")[2])

    def _forks(self) -> int:
        try:
            _, found, rest = _read("/proc/stat").partition(b"\nprocesses ")
        except FileNotFoundError:
            return sys.maxsize
        return int(rest.split(None, 1)[0]) if found else sys.maxsize

    def since(self, moment: Moment) -> Iterable[int]:
        # Linux hands out pids in ascending order and begins again at the top. While it has not, those that appeared
        # are the numbers behind the one that was the last; the count of forks tells whether it has.
        last = self._last_pid()
        new = last - moment.last_pid
        if not last or new < 0 or self._forks() - moment.forks > new + 64:
            return self.everybody()
        if new > min(self._threads() // _TRY, _MOST):
            return [pid for pid in self.everybody() if moment.last_pid < pid <= last]
        return [pid for pid in range(moment.last_pid + 1, last + 1) if self._is_process(pid)]

    def vanished_since(self, moment: Moment) -> bool:
        forks = self._forks() - moment.forks
        return forks > 0 and forks > len(list(self.since(moment)))

    def _is_process(self, pid: int) -> bool:
        # Threads have numbers too, and /proc/<tid> can be opened although it is not listed.
        try:
            return b"\nTgid:\t%d\n" % pid in _read(f"/proc/{pid}/status")
        except OSError:
            return False

    def everybody(self) -> Iterable[int]:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]

    def holds_socket(self, pid: int, inode: int) -> bool:
        return any(name == f"socket:[{inode}]" for _, name in _descriptors(pid))

    def inherited_mark(self, pid: int) -> str | None:
        return next((mark for _, mark in self._markers(pid)), None)

    def inherited_note(self, pid: int) -> str:
        for descriptor, _ in self._markers(pid):
            with suppress(OSError):  # It has ended, or closed it.
                return _peek(f"/proc/{pid}/fd/{descriptor}")
        return ""

    def _markers(self, pid: int) -> Iterator[tuple[str, str]]:
        """The descriptors of :func:`marker` that a process has inherited, and their marks."""
        head, tail = f"/memfd:{marker_name('')}", " (deleted)"
        for descriptor, name in _descriptors(pid):
            if name.startswith(head) and name.endswith(tail) and self._is_inherited(pid, descriptor):
                yield descriptor, name[len(head) : -len(tail)]

    def _is_inherited(self, pid: int, descriptor: str) -> bool:
        # A run has it open for the moment in which it starts a service, to be closed on exec; a process that is forked
        # just then is none of the service's.
        try:
            flags = _read(f"/proc/{pid}/fdinfo/{descriptor}").partition(b"flags:")[2].split(None, 1)[0]
        except (OSError, IndexError):
            return False
        return not int(flags, 8) & os.O_CLOEXEC

    def send(self, identity: Identity, number: int) -> bool:
        sent = self._send(identity, number)
        return send_by_pid(self, identity, number) if sent is None else sent

    def send_group(self, leader: Identity, number: int) -> bool:
        return bool(self._send(leader, number, _PIDFD_SIGNAL_PROCESS_GROUP))

    def _send(self, identity: Identity, number: int, flags: int = 0) -> bool | None:
        """Whether the signal was sent; ``None`` where the kernel does not know how."""
        if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
            return None
        try:
            fd = os.pidfd_open(identity.pid)
        except OSError:  # Gone, or a kernel before 5.3.
            return False if self.status(identity.pid) is None else None
        try:
            # The descriptor is of one process for good: looked at after it was opened, it is the one we mean.
            status = self.status(identity.pid)
            if status is None or status.identity != identity:
                return False
            signal.pidfd_send_signal(fd, number, None, flags)
            return True
        except OSError:  # Gone, not permitted, or a flag that the kernel does not know.
            return False
        finally:
            os.close(fd)


def _read(path: str) -> bytes:
    # Without a file object: a look at a process is made of many such reads.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = piece = os.read(descriptor, 16384)
        while piece:
            piece = os.read(descriptor, 16384)
            found += piece
        return found
    finally:
        os.close(descriptor)


def _peek(path: str) -> str:
    """The beginning of a file, whatever it has become."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return os.fsdecode(os.pread(descriptor, 4096, 0))
    finally:
        os.close(descriptor)


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """The descriptors of a process and what they are, as far as we may see them."""
    for descriptor in _listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            yield descriptor, os.readlink(f"/proc/{pid}/fd/{descriptor}")


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
