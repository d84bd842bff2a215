"""A cgroup v2 of our own, where one can be made: it names every descendant at once and ends them all.

What descends from a member is a member, whatever it does to its session, its parents or its environment (cgroups(7)).
One can be made by root in most virtual machines, and by a user whose cgroup was delegated (systemd's user slices).
"""

from __future__ import annotations

import _thread
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

__all__ = ["SWITCH", "Cgroup", "Stay", "await_arrivals", "own_directory", "parent"]

SWITCH = "CASEEXEC_CGROUP"
"""The environment variable that turns cgroups off when it is ``0``."""

_PATIENCE = 1.0


class Cgroup:
    """One cgroup, with those below it.

    :param path: its directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self) -> bool:
        """Make it; ``False`` when the kernel refuses."""
        try:
            os.mkdir(self.path)
        except OSError:
            return False
        return True

    def add(self, pid: int) -> bool:
        """Take a process in; ``False``: it has ended, or may not be moved.

        What it forks from now on is a member too. This can take 10 ms, in which no other cgroup can be made either: the
        kernel waits until every processor knows of it. Moves right after one another share that wait.
        """
        return self._write("procs", str(pid))

    def pids(self) -> list[int]:
        """Every member, also those of cgroups that were made below; zombies are none."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.path):
            with suppress(OSError), open(os.path.join(directory, "cgroup.procs")) as file:
                found += map(int, file.read().split())
        return found

    def is_empty(self) -> bool:
        """Whether it has been made, and nobody lives in it; nobody can be missed here."""
        try:
            with open(self._file("events")) as file:
                return "populated 0" in file.read()
        except OSError:
            return False

    def kill(self) -> bool:
        """Send SIGKILL to every member, in one step that no fork escapes; ``False``: the kernel refused."""
        return self._write("kill", "1")

    def remove(self) -> bool:
        """Remove it, with those below it; ``False``: it still has members."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
        return not os.path.exists(self.path)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, f"cgroup.{name}")

    def _write(self, name: str, text: str) -> bool:
        try:
            with open(self._file(name), "w") as file:
                file.write(text)
        except OSError:
            return False
        return True


class Stay:
    """A process and what descends from it in a cgroup, from its way there to the removal.

    The way is gone in a thread, as the kernel may take 10 ms for it; it ends in that time.

    :param descendants: tells the present descendants of a process.
    """

    def __init__(self, cgroup: Cgroup, pid: int, descendants: Callable[[int], Iterable[int]]) -> None:
        self._cgroup = cgroup
        self._arrived = self._over = False
        self._done = threading.Event()
        _notice_forks()
        _under_way.add(self._done)
        try:
            # Not threading's, whose start() waits until the new thread pauses for the first time.
            _thread.start_new_thread(self._enter, (pid, descendants))
        except RuntimeError:  # No more threads.
            self._enter(pid, descendants)

    def _enter(self, pid: int, descendants: Callable[[int], Iterable[int]]) -> None:
        entered: set[int] = set()
        try:
            self._cgroup.create()
            while not self._over and (new := {pid, *descendants(pid)} - entered):
                for member in new:
                    self._cgroup.add(member)
                entered |= new
        finally:
            self._arrived = True
            if self._over:
                self._cgroup.remove()
            self._done.set()
            _under_way.discard(self._done)

    def end(self) -> None:
        """Remove the cgroup, now that all have ended; if the process is still under way, when it arrives."""
        self._over = True
        if self._arrived:
            self._cgroup.remove()


# A fork meanwhile would be that of a process with several threads, of which Python warns.
_under_way: set[threading.Event] = set()


def await_arrivals() -> None:
    """Wait until no process is under way to its cgroup."""
    for done in list(_under_way):
        done.wait(_PATIENCE)


@functools.cache
def _notice_forks() -> None:
    os.register_at_fork(before=await_arrivals, after_in_child=_under_way.clear)


def parent() -> str | None:
    """The directory below which this process can make cgroups; ``None`` where it can't, or when turned off."""
    own = own_directory() if os.environ.get(SWITCH) != "0" else None
    # To move a process, the kernel wants this one to be writable too: the nearest that both cgroups are below.
    if own is None or not os.access(os.path.join(own, "cgroup.procs"), os.W_OK):
        return None
    if not os.access(own, os.W_OK) or not _can_kill(own):
        return None
    return own


def _can_kill(own: str) -> bool:
    """Whether cgroups have ``cgroup.kill`` here, which came with Linux 5.14; the topmost has none itself."""
    version = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    return os.path.exists(os.path.join(own, "cgroup.kill")) or version >= (5, 14)


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
