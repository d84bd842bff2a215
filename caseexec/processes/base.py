"""What caseexec asks of the operating system about processes."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "MARK",
    "REAPING",
    "Identity",
    "Moment",
    "ProcessTable",
    "Status",
    "has_markers",
    "marker",
    "marker_name",
    "send_by_pid",
]

MARK = "CASEEXEC_MARK"
"""The environment variable that a service and all its descendants carry; always compared whole."""

REAPING = "reaper"
"""The mark of a reaper; that of one whose run is within a service stands behind the service's."""


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
    """A point in the machine's life, to ask later which processes appeared since.

    One with a ``last_pid`` that was never reached makes everybody look new.
    """

    last_pid: int
    forks: int
    born: float


class ProcessTable(Protocol):
    """What caseexec asks of the operating system."""

    def status(self, pid: int) -> Status | None:
        """Look at a process; ``None`` when there is none.

        :raises OSError: no file descriptor is left to look with.
        """

    def mark(self, pid: int) -> str | None:
        """The whole value of :data:`MARK` in a process's environment; ``None`` without one, or if it can't be read.

        Empty when the environment is: it is so for a moment, while the kernel loads a program.
        """

    def inherited_mark(self, pid: int) -> str | None:
        """The mark in the name of the descriptor of :func:`marker`, if a process has inherited one and it can be seen.

        A fork of a run, which has a copy of what the run just had open, has not inherited it.
        """

    def inherited_note(self, pid: int) -> str:
        """What can be read from that descriptor; whoever has it may have written anything. Empty without one."""

    def command(self, pid: int) -> Sequence[str]:
        """The command line of a process; empty when it can't be seen."""

    def children(self, pid: int) -> list[int]:
        """The processes whose parent is *pid*."""

    def moment(self) -> Moment:
        """Now."""

    def since(self, moment: Moment) -> Iterable[int]:
        """The pids that may have appeared since *moment*; every one that did is among them."""

    def vanished_since(self, moment: Moment) -> bool:
        """Whether somebody may have appeared since *moment* who has ended already, as far as the system tells."""

    def everybody(self) -> Iterable[int]:
        """Every pid."""

    def holds_socket(self, pid: int, inode: int) -> bool:
        """Whether a process has a socket open; ``False`` when that can't be seen."""

    def send(self, identity: Identity, number: int) -> bool:
        """Send a signal to this very process, never to a later one with its pid; ``False``: it is gone, or not ours."""

    def send_group(self, leader: Identity, number: int) -> bool:
        """Send a signal to the group that this very process leads; ``False``: that can't be done without a risk.

        A process that has ended, but was not waited for, still leads its group.
        """


def marker(mark: str, note: str = "") -> int | None:
    """A descriptor whose name is the mark, to be inherited, where there is such a thing (memfd_create(2)).

    Programs that set their title, as Redis and nginx, overwrite their environment; few close what they inherited.

    :param note: what can be read from it.
    """
    try:
        descriptor = os.memfd_create(marker_name(mark))
    except (AttributeError, OSError):
        return None
    os.write(descriptor, os.fsencode(note))
    return descriptor


@functools.cache
def has_markers() -> bool:
    """Whether this system has descriptors as :func:`marker` makes them."""
    descriptor = marker("")
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def marker_name(mark: str) -> str:
    """The name of the descriptor of :func:`marker`."""
    return f"{MARK}={mark}"


def send_by_pid(processes: ProcessTable, identity: Identity, number: int) -> bool:
    """:meth:`ProcessTable.send` where there is no better way: a look at the process, and then the signal."""
    status = processes.status(identity.pid)
    if status is None or status.identity != identity:
        return False
    try:
        os.kill(identity.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
