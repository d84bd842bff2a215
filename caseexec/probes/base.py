"""What a probe is, and what it may know of the service it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from caseexec.deadline import Deadline
from caseexec.errors import Owner, text_of
from caseexec.output import OutputLog
from caseexec.ports import Listener

__all__ = ["Claim", "NotReady", "Probe", "Target", "refusal"]

# A single connection on this machine is there at once or not at all; over a network it may take a moment.
CONNECT_TIMEOUT = 1.0


class NotReady(Exception):
    """The service is not ready yet; the text says what it answered."""


class Target(Protocol):
    """What a probe may know of the service it looks at."""

    @property
    def executor(self) -> Any:
        """The executor, for functions and errors."""

    @property
    def deadline(self) -> Deadline:
        """Until when it has to be ready."""

    @property
    def logs(self) -> Sequence[OutputLog]:
        """Its captured output."""

    @property
    def listener(self) -> str:
        """``"ours"``: only our own listener counts; ``"any"``: everybody's does."""

    def stranger(self, listeners: Sequence[Listener]) -> Owner | None:
        """Who of these listeners is certainly somebody else's."""

    def is_stranger(self, pid: int) -> bool:
        """Whether this process is certainly somebody else's."""

    def run(self, command: str | Sequence[str], shell: bool) -> tuple[int | None, str]:
        """Run a command in the service's environment: its return code, and what it wrote."""


@runtime_checkable
class Probe(Protocol):
    """A readiness check; :func:`str` of it completes "waiting for ..."."""

    def check(self, target: Target, /) -> None:
        """Look once.

        :raises NotReady: not yet.
        """


@runtime_checkable
class Claim(Probe, Protocol):
    """A probe of something that only one process can have: a port, a socket, a pid file."""

    @property
    def place(self) -> str:
        """What it is, in words (``port 127.0.0.1:6379``)."""

    def occupant(self) -> Owner | None:
        """Who has it already, before our service is started; ``None``: nobody."""

    def thief(self) -> Owner | None:
        """Who has it, after our service ended with an error; ``None``: nobody for certain."""


def refusal(error: BaseException) -> str:
    """An error in a few words: ``connection refused`` instead of ``[Errno 111] Connection refused``."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
