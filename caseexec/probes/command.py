"""Ready when a check command succeeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caseexec.errors import exit_text
from caseexec.probes.base import NotReady, Target

__all__ = ["CommandProbe"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


@dataclass(frozen=True)
class CommandProbe:
    """Ready when a check command (``pg_isready``) ends with status 0."""

    command: str | Sequence[str]
    shell: bool = False

    def __str__(self) -> str:
        shown = self.command if isinstance(self.command, str) else " ".join(self.command)
        return f"{shown!r} to succeed"

    def check(self, target: Target, /) -> None:
        code, output = target.run(self.command, self.shell)
        if code is None:
            raise NotReady("the check command did not end in time")
        if code:
            last = output.strip().splitlines()[-1:] or [""]
            raise NotReady(f"the check command {exit_text(code)}" + (f": {last[0]}" if last[0] else ""))
