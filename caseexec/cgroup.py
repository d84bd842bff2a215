"""A cgroup v2 of our own, where one can be made: it names every descendant at once.

What descends from a member is a member, whatever it does to its session, its parents or its environment (cgroups(7)).
One can be made by root in most virtual machines, and by a user whose cgroup was delegated (systemd's user slices).

To move a process into a cgroup takes the kernel 10 ms and more, in which it may have started others. So none is moved:
the thread that starts a service goes there for that moment, which takes it no time, and the service is born there. The
threads of one process can be in several cgroups where these are *threaded* ones (Linux 4.14).
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import IO

__all__ = ["SWITCH", "Cgroup", "is_cgroup", "own_directory", "parent"]

SWITCH = "CASEEXEC_CGROUP"
"""The environment variable that turns cgroups off when it is ``0``."""


class Cgroup:
    """One cgroup, with those below it; for one service.

    :param path: its directory, below that of this process's own.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self) -> bool:
        """Make it; ``False`` when the kernel refuses."""
        try:
            os.mkdir(self.path)
        except OSError:
            return False
        # The kernel also refuses to have processes above that others are to be in, beside this one.
        if _write(self._file("type"), "threaded"):
            return True
        self.remove()
        return False

    @contextmanager
    def entered(self) -> Iterator[bool]:
        """Be in there with this thread, and with no other, for the time of a ``with`` block; what it forks stays.

        It is made if it is not there.

        :returns: whether the kernel has let us in.
        """
        if not (os.path.isdir(self.path) or self.create()):
            yield False
            return
        try:
            # Before we go in: there may be no descriptor left to get out with.
            way_out = open(self._threads_above(), "wb", 0)  # noqa: SIM115
        except OSError:
            yield False
            return
        with way_out:
            inside = _write(self._file("threads"), "0")
            try:
                yield inside
            finally:
                if inside:
                    _leave(way_out)

    def _threads_above(self) -> str:
        return os.path.join(os.path.dirname(self.path), "cgroup.threads")

    def release(self, pid: int) -> None:
        """Take a process out."""
        with suppress(OSError), open(self._threads_above(), "wb", 0) as way_out:
            for thread in os.listdir(f"/proc/{pid}/task"):
                _leave(way_out, int(thread))

    def pids(self) -> list[int]:
        """Every member, also those of cgroups that were made below; zombies are none."""
        found: dict[int, None] = {}
        for thread in self._threads():
            process = _process_of(thread)
            if process == os.getpid():  # An interrupt has kept a thread of ours there.
                with suppress(OSError), open(self._threads_above(), "wb", 0) as way_out:
                    _leave(way_out, thread)
            elif process is not None:
                found[process] = None
        return list(found)

    def _threads(self) -> Iterator[int]:
        for directory in self._directories():
            with suppress(OSError), open(os.path.join(directory, "cgroup.threads"), "rb") as file:
                yield from map(int, file.read().split())

    def _directories(self) -> list[str]:
        """Its own, and those of cgroups below it, which a run within the service makes."""
        with suppress(OSError):
            if os.stat(self.path).st_nlink > 2:
                return [directory for directory, _, _ in os.walk(self.path)]
        return [self.path]

    def is_empty(self) -> bool:
        """Whether it is there, and nobody lives in it; nobody can be missed here."""
        try:
            with open(self._file("events"), "rb", 0) as file:
                return b"populated 0" in file.read(1024)
        except OSError:
            return False

    def kill(self, spared: Callable[[list[int]], Container[int]] | None = None) -> None:
        """Send SIGKILL to every member. They are frozen meanwhile, so that few fork before; look again.

        :param spared: who among the members is not to be killed.
        """
        if not self.pids():
            return
        _write(self._file("freeze"), "1")  # It takes the kernel a moment, which is not waited for.
        pids = self.pids()
        kept = spared(pids) if spared else ()
        for pid in pids:
            if pid not in kept:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        _write(self._file("freeze"), "0")

    def remove(self) -> bool:
        """Remove it, with those below it; ``False``: it still has members."""
        for directory in reversed(self._directories()):
            with suppress(OSError):
                os.rmdir(directory)
        return not os.path.exists(self.path)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, f"cgroup.{name}")


def _leave(way_out: IO[bytes], thread: int = 0) -> None:
    """Take a thread out, by default this one."""
    # An interrupt in between must not leave ours there: whatever it starts later would be a member.
    interrupt = None
    while True:
        try:
            with suppress(OSError):
                way_out.write(str(thread).encode())
            break
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _write(path: str, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _process_of(thread: int) -> int | None:
    with suppress(OSError), open(f"/proc/{thread}/status", "rb", 0) as file:
        return int(file.read(1024).partition(b"\nTgid:")[2].split(None, 1)[0])
    return None


def parent() -> str | None:
    """The directory below which this process can make cgroups; ``None`` where it can't, or when turned off."""
    own = own_directory() if os.environ.get(SWITCH) != "0" else None
    # To move a thread, the kernel wants these to be writable too: of the nearest that both cgroups are below.
    files = [] if own is None else [own, *(os.path.join(own, f"cgroup.{name}") for name in ("procs", "threads"))]
    if own is None or not all(os.access(path, os.W_OK) for path in files):
        return None
    # cgroup.freeze came with this version; the topmost cgroup has none to look for.
    return own if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 2) else None


def is_cgroup(path: str) -> bool:
    """Whether a directory is on the file system on which our own cgroup is."""
    own = own_directory()
    try:
        return own is not None and os.stat(path).st_dev == os.stat(own).st_dev
    except (OSError, ValueError):  # A path may be anything: what it is read from can be changed by hand.
        return False


def own_directory() -> str | None:
    """The directory of this process's cgroup; ``None`` without cgroup v2."""
    if sys.platform != "linux":
        return None
    try:
        own = _field("/proc/self/cgroup", "0::")
        mounts = [line.split() for line in _lines("/proc/self/mountinfo") if " - cgroup2 " in line]
    except (OSError, StopIteration):
        return None
    for mount in mounts:
        root, point = map(_unescaped, mount[3:5])
        inside = os.path.relpath(own, root)
        if inside.split(os.sep)[0] != os.pardir:
            return os.path.normpath(os.path.join(point, inside))
    return None


def _field(path: str, prefix: str) -> str:
    return next(line[len(prefix) :].rstrip("\n") for line in _lines(path) if line.startswith(prefix))


def _lines(path: str) -> list[str]:
    # In it are the names of other mounts, too, of any encoding.
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.readlines()


def _unescaped(path: str) -> str:
    # Blanks and their like are written as octal numbers there.
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
