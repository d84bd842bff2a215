"""A run: what it owns, its record, and the sweep at exit."""

from __future__ import annotations

import atexit
import functools
import glob
import itertools
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from caseexec import cgroup, ports, record
from caseexec.cgroup import Cgroup
from caseexec.deadline import Deadline
from caseexec.directories import is_open, remove_tree, working_directory
from caseexec.errors import BlindWarning, LeakedProcessWarning
from caseexec.group import ProcessGroup
from caseexec.output import OutputLog
from caseexec.plan import StopPlan
from caseexec.processes import MARK, REAPING, chain, has_markers, table
from caseexec.record import RunRecord, ServiceRecord
from caseexec.registry.owned import About, OwnedGroup
from caseexec.registry.reaping import Reaper, command_line, keeper, log_limit, turned_off, worker

__all__ = ["Run", "current_run"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# What is left at exit gets this many seconds to end politely, all together: somebody waits for the prompt.
_EXIT_GRACE = 5.0
_TRIES = 100
# The path of a Unix socket has 103 bytes at most (macOS; 107 on Linux): this leaves some for ours, and for its name.
_LONGEST_PLACE = 40
_SHORT_PLACE = "/tmp"  # noqa: S108


class Run:
    """The services of one Python process.

    :ivar worker: what it is called among the workers of another one (``gw0``); empty: it is nobody's.
    :ivar reaper: what ends the services when this process can't.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.id = secrets.token_hex(8)
        self.groups: set[OwnedGroup] = set()
        self.paths: set[str] = set()
        self.since = time.time()
        self._marks = itertools.count(1)
        self._lock = threading.RLock()
        self._recorded = ""
        # It inherits the present environment, and with it the stop commands do.
        self._environment = dict(os.environ)
        self._cgroups = cgroup.parent()
        self._keeper = keeper()
        self.worker = worker(self._keeper)
        own = table().status(self.pid)
        self._born = own.identity.born if own else 0
        self._command = command_line(self._keeper)
        about = {"moment": table().moment()}
        # Whoever ends the service that this run may be within is to let the reaper do its work.
        environment = {**self._environment, MARK: chain(REAPING)}
        self.reaper = Reaper(self.id, self._keeper, self._cgroups or "", about, environment)
        ports.watch(self._tell_leases)
        atexit.register(self.sweep)

    def new_mark(self) -> str:
        """A mark for one group: the run's id and a number."""
        return f"{self.id}.{next(self._marks)}"

    def own(
        self, plan: StopPlan, logs: list[OutputLog], about: About | None = None, supervised: bool = False
    ) -> OwnedGroup:
        """Enter a new group in the books; from here on an interrupt at any point leaves nothing behind.

        :raises DeclarationError: the limit of its logs, which the user has set, can't be right.
        """
        limit, mark = log_limit(), self.new_mark()
        own = Cgroup(os.path.join(self._cgroups, f"caseexec-{mark}")) if about and self._cgroups else None
        owned = OwnedGroup(self, ProcessGroup(mark, own, supervised), plan, logs, limit, about)
        self.groups.add(owned)
        return owned

    def tell(self, owned: OwnedGroup) -> None:
        """Have the reaper know what there is of a group by now."""
        self._tell(owned.group.mark, owned.testament(), *owned.watched())

    def _tell(self, key: str, entry: Mapping[str, Any], limit: int = 0, logs: Sequence[str] = ()) -> None:
        if not turned_off():
            self.reaper.tell(key, entry, limit, logs)

    def _tell_leases(self, where: Sequence[str], holder: str) -> None:
        self._tell("leases", {"leases": where, "holder": holder})

    def is_orphan(self) -> bool:
        """Whether the process whose worker this one is has ended."""
        if not self._keeper:
            return False
        try:
            status = table().status(self._keeper)
        except OSError:  # No descriptor is left to look with.
            return False
        return status is None or status.zombie

    def changes(self, environment: Mapping[str, str]) -> dict[str, str | None]:
        """What another environment has that the reaper's has not; ``None`` for what it lacks."""
        before = self._environment
        changed = {name: value for name, value in environment.items() if before.get(name) != value}
        return {**dict.fromkeys(before.keys() - environment.keys()), **changed}

    def run_command(
        self, command: str | Sequence[str], plan: StopPlan, deadline: Deadline, **popen: Any
    ) -> tuple[int | None, str]:
        """Run a helper command (a check, a stop command) of a service to its end.

        It has the service's environment and directory, and a mark of its own. When the deadline comes first, it is
        killed with all its children.

        :param popen: further arguments for :class:`subprocess.Popen`.
        :returns: its return code, ``None`` if it had to be killed; and what it wrote.
        :raises OSError: it could not be started.
        """
        owned = self.own(plan, [])
        try:
            log = OutputLog(f"{owned.group.mark}-command")
            owned.logs.append(log)
            self.tell(owned)
            log.open()
            environment = {**plan.environment, MARK: chain(owned.group.mark)}
            code = owned.group.run(command, deadline, shell=plan.shell, cwd=plan.cwd, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=log.writer, stderr=log.writer, **popen)  # fmt: skip
            return code, log.tail()
        finally:
            owned.forget()

    def disown(self, owned: OwnedGroup) -> None:
        """Take a group that has ended out of the books. One that has not stays, for the sweep and the reaper."""
        if owned not in self.groups:
            return
        if owned.group.survivors:
            why = "not even SIGKILL has ended them; it is tried again at the end of this run"
            warnings.warn(LeakedProcessWarning(*owned.names(), owned.group.survivors, why), stacklevel=3)
            return
        owned.leader = None
        if self.pid == os.getpid():
            # In this order: killed or interrupted in between, the reaper or the sweep still knows of the record.
            if owned.about:
                self.write_record()
            if not owned.group.blind:
                self.reaper.forget(owned.group.mark)
        self.groups.discard(owned)
        if owned.group.blind:
            warnings.warn(BlindWarning(owned.group.mark), stacklevel=3)

    # -- the record ----------------------------------------------------------------------------------------------------

    def write_record(self) -> None:
        """Bring the record up to date; without a service there is none."""
        with self._lock:
            groups = sorted(self.groups, key=lambda owned: owned.since)
            # The reaper of a worker without purpose has removed the record, and ends what is in it.
            services = tuple(found for found in map(OwnedGroup.record, groups) if found and not self.is_orphan())
            where = record.directory()
            if self._recorded and (where != self._recorded or not services):
                record.remove(self.id, self._recorded)
                self.reaper.forget("record")
                self._recorded = ""
            if services:
                if not self._recorded:
                    self._recorded = where
                    self._tell("record", {"record": where})
                self._write_record(self._record(groups, services))

    def _write_record(self, content: RunRecord) -> None:
        where = self._recorded
        try:
            record.write(content, where)
        except OSError as error:
            record.tell_unusable(where, error)

    def _record(self, groups: Sequence[OwnedGroup], services: tuple[ServiceRecord, ...]) -> RunRecord:
        means = {
            "cgroup": any(owned.group.cgroup for owned in groups),
            "supervisor": any(owned.group.supervised for owned in groups),
            "group": True, "tree": True, "environment": True, "descriptor": has_markers(),
        }  # fmt: skip
        return RunRecord(
            id=self.id, pid=self.pid, born=self._born, system=record.system(), worker=self.worker,
            command=self._command, cwd=working_directory(), since=self.since,
            means=tuple(name for name, used in means.items() if used), reaper=self.reaper.pid,
            paths=tuple(sorted(self.paths | {log.path for owned in groups for log in owned.logs})), services=services,
        )  # fmt: skip

    # -- temporary files -----------------------------------------------------------------------------------------------

    def temporary_path(self, suffix: str = "") -> str:
        """The path of a file or directory to be made, that goes with the run at the latest."""
        return self._promised(os.path.join(tempfile.gettempdir(), f"caseexec-{self.new_mark()}{suffix}"))

    def make_directory(self, owner: int | None = None, parent: str | None = None) -> str:
        """Make a temporary directory (mode 0700) that goes with the run at the latest.

        Its path is short, so that the path of a Unix socket in it is not too long.

        :param owner: the user id whose it is; ``None``: this process's. Only root can give it away.
        :param parent: where it is; ``None``: where temporary files are.
        """
        where = parent or tempfile.gettempdir()
        is_bad = len(os.fsencode(where)) > _LONGEST_PLACE or (owner is not None and not is_open(where, owner))
        if is_bad and os.access(_SHORT_PLACE, os.W_OK | os.X_OK):
            where = _SHORT_PLACE
        path = self._promised(os.path.join(where, f"caseexec-{self.new_mark()}"))
        os.mkdir(path, 0o700)
        if owner is not None:
            os.chown(path, owner, -1)
        return path

    def _promised(self, path: str) -> str:
        self.paths.add(path)
        self._tell(os.path.basename(path), {"paths": [glob.escape(path)]})
        return path

    def remove(self, path: str) -> None:
        """Remove one of these; does nothing in a forked child."""
        if self.pid != os.getpid():
            return
        self.paths.discard(path)
        if not remove_tree(path):
            warnings.warn(f"{path} could not be removed", ResourceWarning, 2)
        else:
            self.reaper.forget(os.path.basename(path))

    def keep(self, path: str) -> None:
        """Let one of these stay, as somebody is told of it."""
        if self.pid == os.getpid():
            self.paths.discard(path)
            self.reaper.forget(os.path.basename(path))

    # -- the end -------------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """End every group, remove every temporary file. Registered with :mod:`atexit`; a forked child's does nothing.

        A second interrupt while it waits makes it kill what is left at once. What goes wrong with one group is raised
        when all others have ended; that group is left to the reaper.
        """
        if self.pid != os.getpid():
            return
        deadline, failure = Deadline(_EXIT_GRACE), None
        for _ in range(_TRIES):
            try:
                failure = self._sweep(deadline)
                break
            except BaseException:  # Most likely an impatient user: no more politeness, but none is left out.
                deadline = Deadline(0)
        self.write_record()
        ports.release_all()
        self.reaper.forget("leases")
        self.reaper.close()
        if failure is not None:
            raise failure

    def _sweep(self, deadline: Deadline) -> Exception | None:
        failure = None
        groups = sorted(self.groups, key=lambda owned: owned.group.pid, reverse=True)
        if deadline.expired():
            # A mask for a moment: otherwise a key that is held down would spare whoever is last.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                for owned in groups:
                    owned.group.send(owned.plan.kill_signal)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, owned in enumerate(groups):
            # A share, as one that is deaf must not use up the time of the others.
            share = deadline.remaining() / (len(groups) - number)
            try:
                owned.stop(timeout=share if owned.plan.timeout is None else min(share, owned.plan.timeout))
                owned.forget()
            except Exception as error:
                failure = error
        for path in list(self.paths):
            self.remove(path)
        return failure


_run: Run | None = None
_making = threading.RLock()


def current_run() -> Run:
    """The run of this process; a forked child begins one of its own."""
    global _run
    with _making:
        if _run is None or _run.pid != os.getpid():
            _run = Run()
            _notice_forks()
        return _run


@functools.cache
def _notice_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_forked_child)


def _in_forked_child() -> None:
    global _making
    _making = threading.RLock()  # Another thread of the parent may have had it.
    if _run is not None:
        _run.reaper.close_in_child()
