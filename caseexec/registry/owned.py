"""A group of this run: what it takes to end it, to have others end it, and to tell of it."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from caseexec.deadline import Deadline
from caseexec.directories import working_directory
from caseexec.errors import signal_name
from caseexec.group import Ending, ProcessGroup
from caseexec.output import OutputLog
from caseexec.plan import StopPlan
from caseexec.processes import Identity, table
from caseexec.progress import Waiting
from caseexec.record import ServiceRecord

__all__ = ["About", "Books", "OwnedGroup"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# So many times its limit a log may take as long as a banner may be in there that was not looked for yet: a search of
# 80 MB a second, or on a busy machine, is slower than some services write.
_AWAITED = 8


@dataclass(frozen=True, kw_only=True)
class About:
    """What a service is to those who read the record.

    :ivar service: what it is called.
    :ivar test_class: the test class that declares it; empty for an executor of one's own.
    """

    service: str
    test_class: str = ""
    command: str = ""
    stop_command: str = ""
    address: str = ""

    @property
    def title(self) -> str:
        """What it is called where nothing else tells of whom it is."""
        return f"{self.test_class} ({self.service})" if self.test_class else self.service


class Books(Protocol):
    """What a group asks of the run that owns it."""

    def tell(self, owned: OwnedGroup) -> None:
        """Have the reaper know what there is of a group by now."""

    def write_record(self) -> None:
        """Bring the record up to date."""

    def disown(self, owned: OwnedGroup) -> None:
        """Take a group that has ended out of the books."""

    def is_orphan(self) -> bool:
        """Whether the process whose worker the run is has ended."""

    def changes(self, environment: Mapping[str, str]) -> dict[str, str | None]:
        """What another environment has that the reaper's has not; ``None`` for what it lacks."""

    def run_command(self, command: str | Sequence[str], plan: StopPlan, deadline: Deadline) -> tuple[int | None, str]:
        """Run a helper command to its end: its return code and what it wrote."""


@dataclass(eq=False)
class OwnedGroup:
    """A group of this run, with all that it takes to end it and to leave nothing behind.

    :ivar log_limit: the bytes that each of its logs may take on disk; 0: any number.
    :ivar awaited: what it writes may still be searched for what makes it ready: its logs may take more.
    :ivar about: what the record says of it; ``None`` for a helper command, which is not in there.
    """

    run: Books
    group: ProcessGroup
    plan: StopPlan
    logs: list[OutputLog]
    log_limit: int
    about: About | None = None
    since: float = 0
    leader: Identity | None = None
    awaited: bool = False

    def spawn(self, args: str | Sequence[str], **popen: Any) -> None:
        """Start the command, as :meth:`ProcessGroup.spawn`, and let others know of it.

        :raises OSError: as :class:`subprocess.Popen`.
        """
        self.group.spawn(args, **popen)
        status = table().status(self.group.pid)
        self.leader, self.since = status and status.identity, time.time()
        self.run.tell(self)
        self.run.write_record()

    def became_ready(self) -> None:
        """Let it be no longer :attr:`awaited`."""
        self.awaited = False
        self.run.tell(self)

    def stop(self, stop_signal: int | None = None, timeout: float | None = None) -> Ending:
        """Run the stop command, ask the group to end, kill what is left when the time is over.

        :param timeout: seconds; default: the plan's.
        """
        deadline = Deadline(self.plan.timeout if timeout is None else timeout)
        number, title, complaint = stop_signal or self.plan.stop_signal, self._about().title, ""
        try:
            if self.plan.command and self.group.ours:
                complaint = self._run_stop_command(self.plan.command, deadline)
        except BaseException:
            self.group.kill(self.plan.kill_signal)
            raise
        with Waiting(deadline, lambda: (title, f" to end after {signal_name(number)}", "")):
            ending = self.group.end(number, self.plan.kill_signal, deadline)
        return replace(ending, complaint=complaint)

    def _run_stop_command(self, command: str | Sequence[str], deadline: Deadline) -> str:
        """Run it; what went wrong, empty: nothing."""
        about = self._about()
        try:
            with Waiting(deadline, lambda: (f"the stop command of {about.title}", f": {about.stop_command}", "")):
                code, output = self.run.run_command(command, self.plan, deadline)
        except OSError as error:
            code, output = None, str(error)
        if code == 0:
            return ""
        how = "took too long" if code is None and not output else f"failed ({code}): {output.strip()[-500:]}"
        return f"the stop command {command!r} {how}; the stop signal followed"

    def forget(self, keep_logs: bool = False) -> None:
        """Take it out of the run's books. What has not ended stays there, with a :class:`LeakedProcessWarning`."""
        keep_logs = keep_logs and not self.run.is_orphan()  # Then nobody reads the error that names them.
        for log in self.logs:
            if log.lasting:
                log.close_writer()
            elif keep_logs:
                log.close()
            else:
                log.remove()
        self.run.disown(self)

    def names(self) -> tuple[str, str]:
        """What a warning calls it, and its command."""
        about = self._about()
        return about.test_class or about.service, about.command

    def _about(self) -> About:
        return self.about or About(service="a helper command")

    def testament(self) -> dict[str, Any]:
        """What the reaper has to know."""
        plan = self.plan
        told: dict[str, Any] = {
            "leader": self.leader,
            "stop_signal": plan.stop_signal,
            "kill_signal": plan.kill_signal,
            "supervised": self.group.supervised,
            "cgroup": self.group.cgroup.path if self.group.cgroup else "",
            # By a pattern, as they are not there yet when this is told for the first time.
            "paths": [os.path.join(glob.escape(tempfile.gettempdir()), f"caseexec-{self.group.mark}-*")],
        }
        if plan.command and self.about:
            environment = self.run.changes(plan.environment)
            where = os.path.join(working_directory(), os.fsdecode(plan.cwd or ""))
            told["stop_command"] = [plan.command, plan.shell, where, environment]
        return told

    def watched(self) -> tuple[int, list[str]]:
        """What the reaper has to know of its logs: the bytes that each may take, 0: any number; and their paths."""
        return self.log_limit * (_AWAITED if self.awaited else 1), [log.path for log in self.logs]

    def record(self) -> ServiceRecord | None:
        """What the record has of it; ``None`` before it is started, and for a helper command."""
        if self.about is None or self.leader is None:
            return None
        log = self.logs[0].path if self.logs else ""
        return ServiceRecord(
            mark=self.group.mark, pid=self.leader.pid, born=self.leader.born, log=log, since=self.since,
            stop_signal=self.plan.stop_signal, supervised=self.group.supervised,
            cgroup=self.group.cgroup.path if self.group.cgroup else "", **vars(self.about),
        )  # fmt: skip
