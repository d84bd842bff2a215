"""Who else is where a service should be."""

from __future__ import annotations

from collections.abc import Iterable

from caseexec import processes, record
from caseexec.errors import Owner
from caseexec.group import ProcessGroup
from caseexec.ports import Listener

__all__ = ["find_stranger", "is_stranger"]


def find_stranger(group: ProcessGroup, listeners: Iterable[Listener]) -> Owner | None:
    """Who of the listeners is not this service: born before its command, or with another mark.

    A listener that is neither ours nor certainly a stranger (a container's proxy, one that can't be seen) passes.
    """
    table = processes.table()
    for listener in listeners:
        if _holds(listener, [group.pid]) or _holds(listener, processes.tree(table, group.pid)):
            continue
        if _holds(listener, group.living()):
            continue
        for pid in processes.holders(table, listener.inode, listener.pid):
            if is_stranger(group, pid):
                return record.owner(pid)
    return None


def _holds(listener: Listener, pids: Iterable[int]) -> bool:
    if listener.pid is not None:
        return listener.pid in pids
    table = processes.table()
    return listener.inode is not None and any(table.holds_socket(pid, listener.inode) for pid in pids)


def is_stranger(group: ProcessGroup, pid: int) -> bool:
    """Whether a process that is not among :meth:`ProcessGroup.living` is certainly somebody else's."""
    table = processes.table()
    status, leader = table.status(pid), table.status(group.pid)
    if status is None or leader is None or not group.held:
        return False
    mark = table.mark(pid)
    return status.identity.born < leader.identity.born or bool(mark and group.mark not in processes.marks_of(mark))
