"""What the kernel says of processes: who lives, since when, below whom, in which group and with which mark.

Two tables tell the same: :class:`Procfs` reads Linux's ``/proc``, :class:`Portable` asks psutil. :func:`table` gives
the best one of this machine.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

from caseexec.errors import Owner
from caseexec.processes.base import MARK, REAPING, Identity, Moment, ProcessTable, Status, has_markers, marker
from caseexec.processes.portable import Portable
from caseexec.processes.procfs import Procfs

__all__ = [
    "MARK",
    "REAPING",
    "Identity",
    "Moment",
    "Portable",
    "ProcessTable",
    "Procfs",
    "Status",
    "chain",
    "describe",
    "environment",
    "has_markers",
    "holders",
    "is_stopped",
    "mark_of",
    "marker",
    "marks_of",
    "table",
    "tree",
    "user_name",
    "working_directory",
]


@functools.cache
def table() -> ProcessTable:
    """The process table of this machine."""
    return Procfs() if sys.platform == "linux" and os.path.exists("/proc/self/stat") else Portable()


def mark_of(processes: ProcessTable, pid: int) -> str | None:
    """The mark that a process carries in its environment, or else in a descriptor that it inherited.

    Empty for one without an environment: it may just be loaded, and have a mark in a moment.
    """
    mark = processes.mark(pid)
    # Programs that set their title, as Redis and nginx, overwrite their environment: more than emptied, it is no mark.
    return mark or processes.inherited_mark(pid) or mark


def chain(mark: str) -> str:
    """What a command of this mark carries: behind the marks of this process, which may itself be of a service."""
    outer = os.environ.get(MARK, "")
    return f"{outer}/{mark}" if outer else mark


def marks_of(value: str | None) -> list[str]:
    """The single marks in what a process carries, to be compared whole; the innermost first."""
    return value.split("/")[::-1] if value else []


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

    command = " ".join(table().command(pid) or [ask("name") or ""])
    return Owner(pid=pid, command=command, user=ask("username") or "")


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP), and does not go on."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def environment(pid: int) -> dict[str, str]:
    """The environment of a process, as it was when it was started; empty when it can't be seen."""
    import psutil

    try:
        return psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return {}


def working_directory(pid: int) -> str | None:
    """Where a process is; ``None`` when it can't be seen."""
    import psutil

    try:
        return psutil.Process(pid).cwd()
    except (psutil.Error, OSError):
        return None


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
