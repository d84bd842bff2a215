"""What this run owns: its process groups and its directories; and the sweep at exit.

A *run* is one Python process that starts services. Everything is entered here before it exists, and left out only
when it is gone, so that the sweep (and a helper that outlives the run) finds it whatever happened in between.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import shutil
import signal
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from caseexec.deadline import Deadline
from caseexec.group import Ending, ProcessGroup
from caseexec.output import OutputLog
from caseexec.processes import MARK

__all__ = ["OwnedGroup", "Run", "StopPlan", "current_run", "run_command"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# What is left at exit gets this many seconds to end politely, all together: somebody waits for the prompt.
_EXIT_GRACE = 5.0
_TRIES = 100


@dataclass(frozen=True)
class StopPlan:
    """How a group is asked to end.

    :ivar command: run first, when there is one; it is given the time of the stop.
    :ivar timeout: seconds for the command and the signal together; after it the group is killed.
    """

    stop_signal: int = signal.SIGTERM
    kill_signal: int = getattr(signal, "SIGKILL", signal.SIGTERM)
    timeout: float | None = 10.0
    command: str | Sequence[str] | None = None
    shell: bool = False
    cwd: str | os.PathLike[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class OwnedGroup:
    """A group of this run, with all that it takes to end it and to leave nothing behind."""

    run: Run
    group: ProcessGroup
    plan: StopPlan
    logs: list[OutputLog]

    def stop(self, stop_signal: int | None = None, timeout: float | None = None) -> Ending:
        """Run the stop command, ask the group to end, kill what is left when the time is over.

        :param timeout: seconds; default: the plan's.
        """
        deadline = Deadline(self.plan.timeout if timeout is None else timeout)
        complaint = ""
        try:
            if self.plan.command and self.group.ours:
                complaint = self._run_stop_command(self.plan.command, deadline)
        except BaseException:
            self.group.kill(self.plan.kill_signal)
            raise
        ending = self.group.end(stop_signal or self.plan.stop_signal, self.plan.kill_signal, deadline)
        return replace(ending, complaint=complaint)

    def _run_stop_command(self, command: str | Sequence[str], deadline: Deadline) -> str:
        """Run it; what went wrong, empty: nothing."""
        try:
            code, output = run_command(command, self.plan, deadline)
        except OSError as error:
            code, output = None, str(error)
        if code == 0:
            return ""
        how = "took too long" if code is None and not output else f"failed ({code}): {output.strip()[-500:]}"
        return f"the stop command {command!r} {how}; the stop signal followed"

    def forget(self, keep_logs: bool = False) -> None:
        """Take it out of the run's books, once it has ended."""
        for log in self.logs:
            if keep_logs:
                log.close()
            else:
                log.remove()
        self.run.groups.discard(self)


def run_command(command: str | Sequence[str], plan: StopPlan, deadline: Deadline) -> tuple[int | None, str]:
    """Run a helper command (a check, a stop command) of a service to its end.

    It has the service's environment and directory, and a mark of its own. When the deadline comes first, it is killed
    with all its children.

    :returns: its return code, ``None`` if it had to be killed; and what it wrote.
    :raises OSError: it could not be started.
    """
    run = current_run()
    owned = OwnedGroup(run, ProcessGroup(run.new_mark()), plan, [OutputLog("command")])
    run.groups.add(owned)
    log = owned.logs[0]
    try:
        environment = {**plan.environment, MARK: owned.group.mark}
        owned.group.spawn(command, shell=plan.shell, cwd=plan.cwd, env=environment,
                          stdin=-3, stdout=log.writer, stderr=log.writer)  # fmt: skip
        for _ in deadline.turns(owned.group.pause):
            if owned.group.poll() is not None:
                break
        code = owned.group.poll()
        return code, log.tail()
    finally:
        owned.group.kill()
        owned.forget()


class Run:
    """The services of one Python process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.id = secrets.token_hex(8)
        self.groups: set[OwnedGroup] = set()
        self.directories: set[str] = set()
        self._marks = itertools.count(1)
        atexit.register(self.sweep)

    def new_mark(self) -> str:
        """A mark for one group: the run's id and a number."""
        return f"{self.id}.{next(self._marks)}"

    def make_directory(self) -> str:
        """Make a temporary directory (mode 0700) that goes with the run at the latest."""
        path = tempfile.mkdtemp(prefix="caseexec-")
        self.directories.add(path)
        return path

    def remove_directory(self, path: str) -> None:
        """Remove a directory of :meth:`make_directory`; does nothing in a forked child."""
        if self.pid != os.getpid():
            return
        self.directories.discard(path)
        shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(path):  # A service may have taken the permission away from itself.
            _open_directories(path)
            shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(path):
            warnings.warn(f"the temporary directory {path} could not be removed", ResourceWarning, 2)

    def sweep(self) -> None:
        """End every group and remove every directory. Registered with :mod:`atexit`; a forked child's does nothing.

        A second interrupt while it waits makes it kill what is left at once.
        """
        if self.pid != os.getpid():
            return
        deadline = Deadline(_EXIT_GRACE)
        for _ in range(_TRIES):
            try:
                return self._sweep(deadline)
            except BaseException:  # Most likely an impatient user: no more politeness, but none is left out.
                deadline = Deadline(0)

    def _sweep(self, deadline: Deadline) -> None:
        groups = sorted(self.groups, key=lambda owned: owned.group.pid, reverse=True)
        if deadline.expired():
            # A mask for a moment: otherwise a key that is held down would spare whoever is last.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                for owned in groups:
                    owned.group.send(owned.plan.kill_signal)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for owned in groups:
            timeout = owned.plan.timeout
            owned.stop(timeout=deadline.remaining() if timeout is None else deadline.at_most(timeout))
            owned.forget()
        for path in list(self.directories):
            self.remove_directory(path)


def _open_directories(path: str) -> None:
    with suppress(OSError):
        os.chmod(path, 0o700)
    for directory, names, _ in os.walk(path):
        for inner in (os.path.join(directory, name) for name in names):
            if not os.path.islink(inner):  # Behind a link is somebody else's.
                with suppress(OSError):
                    os.chmod(inner, 0o700)


_run: Run | None = None


def current_run() -> Run:
    """The run of this process; a forked child begins one of its own."""
    global _run
    if _run is None or _run.pid != os.getpid():
        _run = Run()
    return _run
