"""Ready when the service has said so."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from caseexec.probes.base import NotReady, Target

__all__ = ["OutputProbe"]


@dataclass(frozen=True)
class OutputProbe:
    """Ready when the service has written something that matches."""

    banner: str | re.Pattern[str]
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = re.compile(self.banner)
        object.__setattr__(self, "pattern", re.compile(given.pattern, given.flags | re.MULTILINE))

    def __str__(self) -> str:
        return f"output that matches {self.pattern.pattern!r}"

    def check(self, target: Target, /) -> None:
        if not any(log.find(self.pattern, target.deadline.expired) for log in target.logs):
            written = sum(log.mark() for log in target.logs)
            raise NotReady(f"not found in the {written} bytes that it wrote")
