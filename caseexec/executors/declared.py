"""What an executor knows of the declaration that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from caseexec.output import OutputLog

__all__ = ["Declared"]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One start of a declared service.

    :ivar test_class: the class that declares it, or the first of those that share it.
    :ivar attribute: the attribute that it is; empty for the only service of a class with a single-service mixin.
    :ivar where: what stands before the name of an option, for errors (``tests.Case.service_``, ``tests.Case.redis.``).
    :ivar port: its port; ``None``: it has none.
    :ivar tmp: its directory.
    :ivar others: what the placeholders of other services stand for.
    :ivar log: where its output goes, from one start to the next; ``None``: into a log that goes with the command.
    """

    test_class: str
    attribute: str = ""
    where: str = ""
    port: int | None = None
    tmp: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    log: OutputLog | None = None

    @property
    def who(self) -> str:
        """What errors call it."""
        return f"{self.test_class}.{self.attribute}" if self.attribute else self.test_class
