"""What a run leaves behind when it is killed: found, asked to end, killed, removed.

The leaders are not our children here, and nobody keeps their process ids from being reused. So a group counts as the
run's only while its leader is there, the very process that the run has started; and signals go to processes that are
held by a descriptor, never to a number.
"""

from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from caseexec import processes, record
from caseexec.cgroup import Cgroup, is_cgroup
from caseexec.deadline import Deadline
from caseexec.directories import remove_tree
from caseexec.group import ProcessGroup
from caseexec.members import REAPERS_TIME, Members
from caseexec.plan import StopPlan

__all__ = ["Left", "Remains", "end_of_run", "of_record", "remove_paths"]

# Between the stop signal and SIGKILL (seconds): the services of a killed run are gone within two.
_GRACE = 0.8
# Between a kill signal that is another, which may write a core, and SIGKILL.
_KILL_GRACE = 0.3
# For a stop command (seconds).
_STOP_COMMAND = 5.0
# For another reaper to let go of the directory of the leases (seconds).
_PRUNING = 1.0
# What has not ended by then is stuck in the kernel, or forks faster than it can be killed (seconds).
_PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class Left:
    """A process group that a run has started.

    :ivar mark: the mark of its processes.
    :ivar leader: its leader; ``None``: the run was killed before it knew.
    :ivar plan: how it is to be ended.
    :ivar supervised: its leader is a supervisor, to be killed last.
    :ivar cgroup: its cgroup, when it has one.
    """

    mark: str = ""
    leader: processes.Identity | None = None
    plan: StopPlan = field(default_factory=StopPlan)
    supervised: bool = False
    cgroup: Cgroup | None = None


class Remains:
    """What is left of one run.

    :param run_id: the run; whatever carries a mark of it is its.
    :param groups: what is known of its groups.
    :param moment: when the run began; by default everybody is looked at.
    :param strict: count a group only if its leader carries its mark, too; for what was told by a file.
    """

    def __init__(
        self, run_id: str, groups: Sequence[Left], moment: processes.Moment | None = None, strict: bool = False
    ) -> None:
        self._run_id = run_id
        self._groups = groups
        self._strict = strict
        self._table = processes.table()
        # Where the system does not tell the last pid (some sandboxes give a constant), we don't seem to be new either.
        if moment is None or os.getpid() not in self._table.since(moment):
            moment = processes.Moment(last_pid=0, forks=-1, born=0)
        self._members = Members(self._owns, self._own_groups, moment)
        self._members.cgroups = [left.cgroup for left in groups if left.cgroup]
        self._left_of: dict[processes.Identity, Left] = {}
        self._told: set[tuple[processes.Identity, int]] = set()
        self._asked: dict[str, float] = {}

    def _owns(self, mark: str) -> bool:
        return mark.rpartition(".")[0] == self._run_id

    def _own_groups(self) -> set[int]:
        return {left.leader.pid for left in self._groups if left.leader and self._is_there(left, left.leader)}

    def _is_there(self, left: Left, leader: processes.Identity) -> bool:
        status = self._table.status(leader.pid)
        if status is None or status.identity != leader:
            return False  # It has ended, and its number may be a stranger's.
        return not self._strict or left.mark in processes.marks_of(processes.mark_of(self._table, leader.pid))

    def living(self) -> list[tuple[processes.Status, Left]]:
        """Every process of the run, and the group that it belongs to as far as that can be told."""
        return [(status, self._find_left(status)) for status in self._members.remaining()]

    def _find_left(self, status: processes.Status) -> Left:
        found = self._left_of.get(status.identity)
        if found is None:
            found = next(self._candidates(status), Left())
            self._left_of[status.identity] = found
        return found

    def _candidates(self, status: processes.Status) -> Iterator[Left]:
        pid = status.identity.pid
        yield from (left for left in self._groups if left.leader and left.leader.pid == status.group)
        marks = processes.marks_of(processes.mark_of(self._table, pid))
        yield from (left for left in self._groups if left.mark in marks)
        yield from (left for left in self._groups if left.cgroup and pid in left.cgroup.pids())
        # Below a supervisor, with neither group nor mark.
        above = set(self._ancestors(status))
        yield from (left for left in self._groups if left.leader in above)

    def _ancestors(self, status: processes.Status) -> Iterator[processes.Identity]:
        while above := self._table.status(status.parent):
            yield above.identity
            status = above

    def end(self, grace: float = _GRACE) -> list[int]:
        """Run the stop commands, ask everybody to end, and kill who has not after *grace* seconds.

        :returns: the pids of those that even that did not end.
        """
        hooks = self._start_stop_commands()
        living: list[tuple[processes.Status, Left]] = []
        for elapsed in Deadline(_PATIENCE).turns():
            living = self.living()
            busy = {mark for mark, thread in hooks.items() if thread.is_alive()}
            if not living and not busy:
                break
            self._press([(status, left) for status, left in living if left.mark not in busy], elapsed, grace)
        for cgroup in self._members.cgroups:
            cgroup.remove()
        return [status.identity.pid for status, _ in living]

    def _press(self, living: Sequence[tuple[processes.Status, Left]], elapsed: float, grace: float) -> None:
        pids, reaping = {status.identity.pid for status, _ in living}, self._members.reaping(one for one, _ in living)
        over = {left.mark: elapsed - self._asked.setdefault(left.mark, elapsed) - grace for _, left in living}
        for status, left in living:
            if status.identity.pid in reaping:
                if over[left.mark] >= REAPERS_TIME:
                    self._tell(status, signal.SIGKILL)
                continue
            in_group = left.leader is not None and status.group == left.leader.pid
            if over[left.mark] >= 0:
                outside = any(other is left and status.group != one.group for one, other in living)
                if not (left.supervised and in_group and outside):
                    self._tell(status, left.plan.kill_signal)
                    if self._is_last(left, over[left.mark]):
                        self._tell(status, signal.SIGKILL)
            elif (in_group and elapsed == self._asked[left.mark]) or status.parent not in pids:
                # Who has left the group is asked when its parents are gone, as many servers end their children. Who is
                # started after the others were asked may be there to clean up.
                self._tell(status, left.plan.stop_signal)
        for left in self._groups:
            if self._is_last(left, over.get(left.mark, -1)):
                self._kill_at_once(left, sparing=over[left.mark] < REAPERS_TIME)

    def _is_last(self, left: Left, over: float) -> bool:
        """Whether it is time for SIGKILL, so many seconds after the grace."""
        return over >= (0 if left.plan.kill_signal == signal.SIGKILL else _KILL_GRACE)

    def _kill_at_once(self, left: Left, sparing: bool) -> None:
        """In one step, which no fork escapes, where there is one: it may be forking faster than we look."""
        if left.cgroup:
            left.cgroup.kill(self._reaping_of if sparing else None)
        elif left.leader and not left.supervised and self._is_there(left, left.leader):
            self._table.send_group(left.leader, signal.SIGKILL)

    def _reaping_of(self, pids: Iterable[int]) -> set[int]:
        return self._members.reaping(self._members.statuses(pids))

    def _tell(self, status: processes.Status, number: int) -> None:
        # Once each: to some programs a signal means another thing the second time.
        if (status.identity, number) in self._told:
            return
        self._told.add((status.identity, number))
        self._table.send(status.identity, number)
        self._table.send(status.identity, signal.SIGCONT)  # One that is paused would not hear.

    def _start_stop_commands(self) -> dict[str, threading.Thread]:
        hooks = {left.mark: threading.Thread(target=_run_stop_command, args=(left,))
                 for left in self._groups if left.plan.command and left.leader}  # fmt: skip
        for hook in hooks.values():
            with suppress(RuntimeError):  # No more threads; the stop signal does without.
                hook.start()
        return hooks


def _run_stop_command(left: Left) -> None:
    # With a mark that is not the run's: it is not to be ended with what it ends. But with that of this reaper.
    group, plan = ProcessGroup(f"{left.mark}.stop"), left.plan
    assert plan.command
    environment = {**plan.environment, processes.MARK: processes.chain(group.mark)}
    silent = subprocess.DEVNULL
    with suppress(OSError):  # Its program or directory went with the run: the stop signal follows.
        group.run(plan.command, Deadline(_STOP_COMMAND), shell=plan.shell, cwd=plan.cwd, env=environment,
                  stdin=silent, stdout=silent, stderr=silent)  # fmt: skip


def end_of_run(run_id: str, about: str, entries: Mapping[bytes, bytes]) -> None:
    """End and remove all that a run has told its reaper of, and has not taken back.

    :param about: what the run said of itself when it started the reaper, in JSON.
    :param entries: what it told, in JSON, by key.
    """
    known: dict[str, Any] = {}
    for key, entry in entries.items():
        with suppress(ValueError):  # One that was torn must not spare the others.
            known[key.decode()] = json.loads(entry)
    groups = [_as_left(mark, entry) for mark, entry in known.items() if "leader" in entry]
    moment = processes.Moment(*json.loads(about)["moment"])
    survivors = Remains(run_id, groups, moment).end()
    remove_paths(path for entry in known.values() for pattern in entry.get("paths", ()) for path in glob.glob(pattern))
    for where in {entry["record"] for entry in known.values() if "record" in entry and not survivors}:
        record.remove(run_id, where)  # With survivors somebody may want to know, and try again.
    _remove_leases(known.values())


def _remove_leases(entries: Iterable[Mapping[str, Any]]) -> None:
    """Remove the leases of the run, also when it goes on as a worker without purpose, and those of other dead ones."""
    places = {entry["record"]: None for entry in entries if "record" in entry}
    for entry in entries:
        places.update(dict.fromkeys(entry.get("leases", ()), entry.get("holder")))
    for where, holder in places.items():
        record.prune_leases(where, holder, patience=_PRUNING)


def of_record(run: record.RunRecord) -> Remains:
    """What is left of a run according to its record; only what carries its marks, too."""
    groups = [
        Left(mark=found.mark, leader=found.leader, plan=StopPlan(stop_signal=found.stop_signal),
             supervised=found.supervised, cgroup=_own_cgroup(found))
        for found in run.services
    ]  # fmt: skip
    return Remains(run.id, groups, strict=True)


def _own_cgroup(service: record.ServiceRecord) -> Cgroup | None:
    named = os.path.basename(service.cgroup) == f"caseexec-{service.mark}"
    # Anybody can make an ordinary directory of that name, and list there whom he likes.
    return Cgroup(service.cgroup) if named and is_cgroup(service.cgroup) else None


def _as_left(mark: str, entry: Mapping[str, Any]) -> Left:
    command, shell, cwd, changes = entry.get("stop_command", (None, False, None, {}))
    environment = {**os.environ, **changes}
    plan = StopPlan(
        stop_signal=entry["stop_signal"], kill_signal=entry["kill_signal"], command=command, shell=shell, cwd=cwd,
        environment={name: value for name, value in environment.items() if value is not None},
    )  # fmt: skip
    return Left(
        mark=mark, leader=entry["leader"] and processes.Identity(*entry["leader"]), plan=plan,
        supervised=entry["supervised"], cgroup=Cgroup(entry["cgroup"]) if entry["cgroup"] else None,
    )  # fmt: skip


def remove_paths(paths: Iterable[str]) -> list[str]:
    """Remove temporary directories and logs of a run that is over.

    :returns: those that were there, and are gone now.
    """
    named = (path for path in paths if os.path.isabs(path) and os.path.basename(path).startswith("caseexec-"))
    return [path for path in named if os.path.lexists(path) and remove_tree(path)]
