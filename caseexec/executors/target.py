"""An executor, as the probes see it that look whether it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caseexec import registry, strangers
from caseexec.deadline import Deadline
from caseexec.errors import Owner
from caseexec.executors.command import Command, split
from caseexec.executors.simple import SimpleExecutor
from caseexec.output import OutputLog
from caseexec.ports import Listener

__all__ = ["Target"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


@dataclass(frozen=True)
class Target:
    """The :class:`caseexec.probes.base.Target` that an executor is.

    :ivar listener: ``"ours"`` or ``"any"``.
    :ivar deadline: until when a probe may take.
    """

    executor: SimpleExecutor
    listener: str
    deadline: Deadline

    @property
    def logs(self) -> Sequence[OutputLog]:
        """What the command writes."""
        return self.executor._capture.logs

    def stranger(self, listeners: Sequence[Listener]) -> Owner | None:
        """Who of these listeners is certainly not the service."""
        owned = self.executor._owned
        return strangers.find_stranger(owned.group, listeners) if owned else None

    def is_stranger(self, pid: int) -> bool:
        """Whether a process is certainly somebody else's."""
        owned = self.executor._owned
        return owned is not None and pid not in owned.group.living() and strangers.is_stranger(owned.group, pid)

    def run(self, command: Command, shell: bool) -> tuple[int | None, str]:
        """Run a check as the service is run; its exit status, ``None`` when it took too long, and its output."""
        plan = replace(self.executor._plan, shell=shell, environment=self.executor.envvars)
        parts = split(command) if isinstance(command, str) and not shell else command
        try:
            return registry.current_run().run_command(parts, plan, self.deadline)
        except (OSError, ValueError) as error:
            raise self.executor._not_startable(error, parts, "check") from None
