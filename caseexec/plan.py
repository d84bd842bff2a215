"""How a process group is asked to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["StopPlan"]


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
