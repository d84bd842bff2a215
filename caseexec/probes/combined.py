"""Probes made of functions and of other probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from caseexec.errors import AlreadyRunning
from caseexec.probes.base import NotReady, Probe, Target, refusal

__all__ = ["CallableProbe", "all_of", "any_of", "as_probe"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# Errors of the function, not of the service: to ask again would only hide them.
_BUGS = (AttributeError, ImportError, NameError, SyntaxError, TypeError)


@dataclass(frozen=True)
class CallableProbe:
    """Ready when a function, called with the executor, returns something true.

    What it raises counts as "not yet", as clients raise errors of their own; except for those that only a mistake in
    the function raises (:class:`AttributeError`, :class:`ImportError`, :class:`NameError`, :class:`SyntaxError`,
    :class:`TypeError`).
    """

    function: Callable[[Any], object]

    def __str__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"{name}() to be true"

    def check(self, target: Target, /) -> None:
        try:
            answer = self.function(target.executor)
        except (NotReady, AlreadyRunning, *_BUGS):
            raise
        except Exception as error:
            raise NotReady(refusal(error)) from error
        if not answer:
            raise NotReady(f"it returned {answer!r}")


def as_probe(given: Probe | Callable[[Any], object]) -> Probe:
    """A probe as it is; a function as a :class:`CallableProbe`."""
    return given if isinstance(given, Probe) else CallableProbe(given)


@dataclass(frozen=True)
class _AllOf:
    probes: tuple[Probe, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.probes))

    def check(self, target: Target, /) -> None:
        for probe in self.probes:
            try:
                probe.check(target)
            except NotReady as error:
                raise NotReady(f"{probe}: {error}" if len(self.probes) > 1 else str(error)) from error


@dataclass(frozen=True)
class _AnyOf:
    probes: tuple[Probe, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.probes))

    def check(self, target: Target, /) -> None:
        refusals = []
        for probe in self.probes:
            try:
                return probe.check(target)
            except NotReady as error:
                refusals.append(f"{probe}: {error}")
        raise NotReady("; ".join(refusals))


def all_of(*probes: Probe | Callable[[Any], object]) -> Probe:
    """Ready when all are; they are asked in order, and the first that is not ready answers."""
    return _AllOf(tuple(map(as_probe, probes)))


def any_of(*probes: Probe | Callable[[Any], object]) -> Probe:
    """Ready when one is."""
    return _AnyOf(tuple(map(as_probe, probes)))
