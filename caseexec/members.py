"""Who belongs to a command, or to a whole run: its group, who descends from it, who carries its mark."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from caseexec import processes
from caseexec.cgroup import Cgroup
from caseexec.deadline import Deadline

__all__ = ["REAPERS_TIME", "Members"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

REAPERS_TIME = 2.0
"""For the reapers of runs within to do their work, before they are killed too (seconds)."""

# How long to look for somebody who was missed (seconds); it matters only while others fork all the time.
_PATIENCE = 0.02
_PATIENCE_WITH_STRAYS = 0.4


class Members:
    """The living processes of a command or a run, found by all means at hand.

    :param owns: whether a mark is one of ours; marks are compared whole.
    :param groups: the process groups that are certainly ours now, because somebody keeps their numbers from being
        reused.
    :param moment: only processes that appeared since are looked at, so the cost does not grow with the number of others
        on the machine.
    :ivar cgroups: all their members are ours.
    :ivar blind: once there was no file descriptor left to look with.
    :ivar known: those that were found; they stay ours, whatever they do.
    """

    def __init__(
        self, owns: Callable[[str], bool], groups: Callable[[], Collection[int]], moment: processes.Moment
    ) -> None:
        self.cgroups: list[Cgroup] = []
        self.known: set[processes.Identity] = set()
        self._owns = owns
        self._groups = groups
        self._moment = moment
        self._table = processes.table()
        self.blind = False
        self._others: set[processes.Identity] = set()
        self._reaping: dict[processes.Identity, bool] = {}
        self._strays = False

    def living(self) -> list[processes.Status]:
        """Every one that has not ended, and is not this very process."""
        groups = self._groups()
        candidates = {*self.new(), *(known.pid for known in list(self.known))}
        if not candidates.issuperset(groups):
            # The system does not tell the last pid (some sandboxes give a constant): then everybody is looked at.
            self._moment = self._moment._replace(last_pid=sys.maxsize)
            candidates.update(self.new(), groups)
        found: dict[int, processes.Status] = {}
        for pid in sorted(candidates):
            self._add(found, pid, groups)
        for cgroup in self.cgroups:
            for pid in cgroup.pids():
                self._add(found, pid, groups, descends=True)
        for pid in list(found):
            for child in processes.tree(self._table, pid):
                self._add(found, child, groups, descends=True)
        return list(found.values())

    def remaining(self) -> list[processes.Status]:
        """The living; when there are none, it has been made as sure as possible that none was missed.

        Who is forked while we look, by one whom we had not looked at yet and who is gone when we do, is not seen. So it
        is looked again until all who were forked meanwhile have been looked at, too; with those that leave no trace but
        their mark, for longer.
        """
        for _ in Deadline(_PATIENCE_WITH_STRAYS if self._strays else _PATIENCE).turns():
            with suppress(OSError):  # No descriptor is left to look with.
                before = self._table.moment()
                living = self.living()
                if living or self._are_cgroups_empty() or self._have_seen_all_since(before):
                    return living
        return self.living()

    def _are_cgroups_empty(self) -> bool:
        return bool(self.cgroups) and all(cgroup.is_empty() for cgroup in self.cgroups)

    def _have_seen_all_since(self, moment: processes.Moment) -> bool:
        statuses = map(self._table.status, self._table.since(moment))
        seen = all(status is None or status.identity in self._others for status in statuses)
        return seen and not self._table.vanished_since(moment)

    def statuses(self, pids: Iterable[int]) -> list[processes.Status]:
        """A look at each of those that are there."""
        return [status for status in map(self._table.status, pids) if status]

    def reaping(self, living: Iterable[processes.Status]) -> set[int]:
        """The pids of those that end what a run within has left, and then themselves; and of all below them."""
        groups = self._groups()  # Each is in a session of its own.
        found = {one.identity.pid for one in living if one.group not in groups and self._is_reaping(one.identity)}
        return found.union(*(processes.tree(self._table, pid) for pid in found))

    def _is_reaping(self, identity: processes.Identity) -> bool:
        if identity not in self._reaping:
            found = processes.mark_of(self._table, identity.pid)
            if found == "":  # It may just be loaded.
                return False
            # Only what is within: we may ourselves be within what a reaper has started.
            within = itertools.takewhile(lambda mark: not self._owns(mark), processes.marks_of(found))
            self._reaping[identity] = processes.REAPING in within
        return self._reaping[identity]

    def new(self) -> set[int]:
        """The pids of all that may have appeared since the moment, ours or not."""
        try:
            return set(self._table.since(self._moment))
        except OSError:  # The group can be signalled all the same.
            self.blind = True
            return set()

    def _add(
        self, found: dict[int, processes.Status], pid: int, groups: Collection[int], descends: bool = False
    ) -> None:
        try:
            status = None if pid in found or pid == os.getpid() else self._table.status(pid)
        except OSError:
            self.blind, status = True, None
        if status is None or status.zombie:
            return
        if descends or status.group in groups or self._is_marked(status.identity):
            self._strays |= status.group not in groups
            self.known.add(status.identity)
            found[pid] = status

    def _is_marked(self, identity: processes.Identity) -> bool:
        if identity in self.known:
            return True
        if identity in self._others:
            return False
        mark = processes.mark_of(self._table, identity.pid)
        if any(map(self._owns, processes.marks_of(mark))):
            return True
        if mark != "":
            self._others.add(identity)
        return False
