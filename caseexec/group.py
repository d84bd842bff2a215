"""A process group: one command in a session of its own, and everything that descends from it.

The leader is not reaped before its group is gone: as long as it is there, alive or as a zombie, the kernel gives its
number to nobody else, so a signal to the group cannot reach a stranger.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from caseexec import processes, record
from caseexec.cgroup import Cgroup
from caseexec.deadline import Deadline
from caseexec.leader import Leader
from caseexec.members import REAPERS_TIME, Members

__all__ = ["Ending", "ProcessGroup"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# How long to wait for what SIGKILL has to do; only a process stuck in the kernel needs more.
_KILL_PATIENCE = 5.0
_LOAD_PATIENCE = 0.1
_ADOPTION_PATIENCE = 1.0


@dataclass(frozen=True)
class Ending:
    """How a group ended.

    :ivar returncode: the leader's, as in :mod:`subprocess`; ``None`` when it could not be ended.
    :ivar killed: the pids that had to be killed after their time was over, as far as that was seen.
    :ivar complaint: what went wrong with the stop command.
    """

    returncode: int | None = None
    killed: tuple[int, ...] = ()
    complaint: str = ""


class ProcessGroup:
    """A command and its descendants: spawn once, signal, wait, end.

    Only the process that made it acts on it: in a forked child every method that would signal does nothing.

    :param mark: the value of :data:`caseexec.processes.MARK` in the environment that :meth:`spawn` is given.
    :param cgroup: one of its own; it is removed with the group.
    :param supervised: the command is run by :mod:`caseexec.supervisor`, which is then the leader.
    :ivar killed: whether :meth:`kill` was called, also by an :meth:`end` that was interrupted.
    :ivar survivors: the pids that the last :meth:`kill` did not end: they are stuck in the kernel, or fork faster.
    """

    def __init__(self, mark: str, cgroup: Cgroup | None = None, supervised: bool = False) -> None:
        self.mark = mark
        self._leader: Leader | None = None
        self.supervised = supervised
        self.killed = False
        self.survivors: tuple[int, ...] = ()
        self._owner = os.getpid()
        self._table = processes.table()
        self._members = Members(mark.__eq__, lambda: (self.pid,) if self.held else (), self._table.moment())
        self._members.cgroups = [cgroup] if cgroup else []

    def spawn(self, command: str | Sequence[str], **popen: Any) -> None:
        """Start the command as leader of a new session. If this is interrupted, :meth:`kill` finds it by its mark.

        :raises OSError: as :class:`subprocess.Popen`.
        """
        marker = None
        try:
            marker = processes.marker(processes.chain(self.mark), note=record.directory())
            inherited = (*popen.get("pass_fds", ()), *([] if marker is None else [marker]))
            if popen.get("close_fds", True):
                popen = {**popen, "pass_fds": inherited}
            with self._in_cgroup():
                self._leader = Leader(subprocess.Popen(command, **{**popen, "start_new_session": True}))
        finally:
            if marker is not None:
                os.close(marker)

    @contextmanager
    def _in_cgroup(self) -> Iterator[None]:
        inside = False
        try:
            with self.cgroup.entered() if self.cgroup else nullcontext(False) as inside:
                yield
        finally:
            if inside:
                self._release_strangers()
            else:
                self._leave_cgroup()

    def _release_strangers(self) -> None:
        """Take out what a signal handler, or a destructor, has started while we were in there with this thread."""
        for cgroup in self._members.cgroups:
            pids = cgroup.pids()
            if pids != [self.pid]:
                for stranger in set(pids) & set(self._table.children(os.getpid())) - {self.pid}:
                    cgroup.release(stranger)

    def run(self, command: str | Sequence[str], deadline: Deadline, **popen: Any) -> int | None:
        """Run a helper command to its end; when the deadline comes first, kill it with all its children.

        :returns: its return code; ``None`` if it had to be killed.
        :raises OSError: it could not be started.
        """
        try:
            self.spawn(command, **popen)
            for _ in deadline.turns(self.pause):
                if self.poll() is not None:
                    break
            return self.poll()
        finally:
            self.kill()

    # -- the leader ----------------------------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[Any] | None:
        """The leader, once spawned."""
        return self._leader.process if self._leader else None

    @property
    def ours(self) -> bool:
        """Whether this process made the group, rather than to have inherited it by a fork."""
        return self._owner == os.getpid()

    @property
    def blind(self) -> bool:
        """Whether there was no file descriptor left to look for its processes with, so that some may be left."""
        return self._members.blind

    @property
    def cgroup(self) -> Cgroup | None:
        """The cgroup of its own, as long as it is there."""
        return next(iter(self._members.cgroups), None)

    @property
    def pid(self) -> int:
        """The leader's process id, which is the group's too; 0 before :meth:`spawn`."""
        return self._leader.process.pid if self._leader else 0

    def poll(self) -> int | None:
        """The leader's return code, ``None`` while it runs. Does not reap it."""
        return self._leader.poll() if self._leader else None

    @property
    def held(self) -> bool:
        """Whether the leader is unreaped: alive, or a zombie that keeps the group's number from being reused."""
        return self._leader is not None and self._leader.held

    def pause(self, seconds: float) -> None:
        """Sleep; the end of the leader wakes the sleeper, once."""
        if self._leader is None:
            time.sleep(seconds)
        else:
            self._leader.pause(seconds)

    # -- the members ---------------------------------------------------------------------------------------------------

    def living(self) -> list[int]:
        """Every process of the group that has not ended: the members, who descends from them, who carries the mark.

        Only processes that appeared since the group was made are looked at, so the cost does not grow with the number
        of others on the machine.
        """
        return [status.identity.pid for status in self._living()]

    def _living(self) -> list[processes.Status]:
        return self._members.living() if self.ours else []

    # -- the end -------------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Signal the whole group, unless its leader is reaped and its number may be somebody else's."""
        # Not permitted: only other users' processes are left, or on macOS zombies. Who survives is told at the end.
        with suppress(ProcessLookupError, PermissionError):
            if self._leader is not None:
                self._leader.signal_group(number)

    def end(self, stop_signal: int, kill_signal: int, deadline: Deadline) -> Ending:
        """Ask everybody to end, wait until *deadline*, kill who is left, prove that nobody is, and reap the leader.

        An interrupt while it waits cuts the politeness short: everybody is killed, then it goes on.
        """
        gone = False
        try:
            if self.ours and self.process is not None:
                gone = self._ask(stop_signal, deadline)
        except BaseException:
            self.kill(kill_signal)
            raise
        if gone and not self._members.remaining() and self.poll() is not None:
            return Ending(self._reap())
        late = self._living()
        reaping, ending = self._members.reaping(late), self.kill(kill_signal)
        killed = {*ending.killed, *({status.identity.pid for status in late} - reaping)}
        return Ending(ending.returncode, tuple(sorted(killed)))

    def _ask(self, number: int, deadline: Deadline) -> bool:
        """Ask everybody to end; whether nobody was seen any more before the deadline."""
        self._living()  # Before the signal: who left the group is still connected to the leader now.
        self.signal(number)
        self.signal(signal.SIGCONT)  # One that is paused (SIGSTOP) would not hear.
        for _ in deadline.turns(self.pause):
            if self.poll() is not None:
                break
        # Escapees are asked when their parents are gone, as many servers (PostgreSQL) end their children themselves.
        asked: set[processes.Identity] = set()
        for _ in deadline.turns():
            living = self._living()
            if not living:
                return True
            pids, reaping = {status.identity.pid for status in living}, self._members.reaping(living)
            for status in living:
                done = (self.held and status.group == self.pid) or status.identity.pid in reaping
                if not done and status.parent not in pids and status.identity not in asked:
                    asked.add(status.identity)
                    self._table.send(status.identity, number)
                    self._table.send(status.identity, signal.SIGCONT)
        return False

    def kill(self, number: int | None = None) -> Ending:
        """End everybody at once, prove that nobody is left, and reap the leader.

        :param number: what to try first; SIGKILL follows if that did not do. Default: SIGKILL.
        """
        if not self.ours:
            return Ending()
        self.killed = True
        living: list[processes.Status] = []
        killed: set[int] = set()
        if self.process is None:
            self._await_marks()
        for signal_number in dict.fromkeys((number or signal.SIGKILL, signal.SIGKILL)):
            if not (self.supervised and signal_number == signal.SIGKILL):
                self.signal(signal_number)
            told: set[processes.Identity] = set()
            for elapsed in Deadline(_KILL_PATIENCE).turns(self.pause):
                living = self._members.remaining()
                if not living and (self.process is None or self.poll() is not None):
                    return Ending(self._reap(), tuple(sorted(killed)))
                # Once each: to some programs a signal means another thing the second time.
                new = self._send(living, signal_number, told, elapsed)
                told |= new
                killed.update(identity.pid for identity in new)
        return Ending(self._reap(status.identity.pid for status in living), tuple(sorted(killed)))

    def _spared(self, living: list[processes.Status], number: int, elapsed: float) -> set[int]:
        """Whose turn is later: the reapers of runs within, and the supervisor below which the others stay."""
        in_time = number != signal.SIGKILL or elapsed < REAPERS_TIME
        spared = self._members.reaping(living) if in_time else set()
        if self.supervised and self.held and number == signal.SIGKILL and elapsed < _ADOPTION_PATIENCE:
            own = {status.identity.pid for status in living if status.group == self.pid}
            if any(status.identity.pid not in own | spared for status in living):
                return own | spared
        return spared

    def _await_marks(self) -> None:
        """After an interrupted spawn: give a child that is just being loaded the moment until its mark shows."""
        for _ in Deadline(_LOAD_PATIENCE).turns():
            children = self._members.new() & set(self._table.children(os.getpid()))
            if all(self._table.mark(child) != "" for child in children):
                return

    def send(self, number: int) -> None:
        """Signal the group and the escapees, and do not wait."""
        if self.ours:
            self._send(self._living(), number)

    def _send(
        self, living: list[processes.Status], number: int, told: Container[processes.Identity] = (), elapsed: float = 0
    ) -> set[processes.Identity]:
        """Signal those whose turn it is, and who have not been told; who that was."""
        spared, held = self._spared(living, number, elapsed), self.held
        new = [status for status in living if status.identity.pid not in spared and status.identity not in told]
        if any(status.group == self.pid for status in new):
            self.signal(number)
        for status in new:
            if not (held and status.group == self.pid):
                self._table.send(status.identity, number)
        if number == signal.SIGKILL and new:
            for cgroup in self._members.cgroups:
                cgroup.kill(lambda pids: self._spared(self._members.statuses(pids), number, elapsed))
        return {status.identity for status in new}

    def _reap(self, survivors: Iterable[int] = ()) -> int | None:
        self.survivors = tuple(survivors)
        try:
            return self._reaped()
        finally:
            self._leave_cgroup()

    def _leave_cgroup(self) -> None:
        # One with members stays: they are to be found again.
        self._members.cgroups = [cgroup for cgroup in self._members.cgroups if not cgroup.remove()]

    def _reaped(self) -> int | None:
        if self._leader is not None:
            return self._leader.reap()
        # An interrupted spawn: its child, if there was one, was ended by its mark.
        for identity in self._members.known:
            with suppress(ChildProcessError):
                os.waitpid(identity.pid, os.WNOHANG)
        return None
