"""A test result that has a failure tell what the services wrote meanwhile."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, cast

from caseexec.errors import ServiceDied, ServiceNotStarted, ServiceUnavailable, add_note

__all__ = ["lost_connection", "telling", "without_frames"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


def telling(result: unittest.TestResult, words: Callable[[bool], str]) -> unittest.TestResult:
    """A result like *result*, in which the errors of failures, errors and failing subtests have the words as a note.

    :param words: gives them; it is told whether a connection was lost.
    """
    return cast("unittest.TestResult", _Telling(result, words))


class _Telling:
    """Whatever a runner's own result has (a test framework asks for more than unittest knows of), this has too."""

    def __init__(self, result: unittest.TestResult, words: Callable[[bool], str]) -> None:
        self.__dict__.update(_result=result, _words=words)

    def __getattr__(self, name: str) -> Any:
        if name == "_result":  # A copy has none yet.
            raise AttributeError(name)
        found = getattr(self._result, name)
        if name in ("addError", "addFailure"):
            return lambda test, error: found(test, self._noted(error))
        if name == "addSubTest":
            return lambda test, subtest, error: found(test, subtest, self._noted(error))
        return found

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._result, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # Django pickles the test of a failing subtest, and with it the result that it is run with.
        return _same, (self._result,)

    def _noted(self, info: _ExcInfo | None) -> _ExcInfo | None:
        error = info and info[1]
        if isinstance(error, (ServiceDied, ServiceUnavailable, ServiceNotStarted)):
            return without_frames(error)
        if isinstance(error, BaseException):
            words = self._words(lost_connection(error))
            if words:
                add_note(error, words)
        return info


def without_frames(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType]:
    """An error of which no frame is of interest; with one, as pytest would show all of them where all are hidden."""
    return type(error), error, _last(error.__traceback__)  # type: ignore[return-value]


def lost_connection(error: BaseException) -> bool:
    """Whether it comes from a connection that was lost."""
    return any(isinstance(one, (ConnectionError, EOFError)) for one in _chain(error))


def _same(result: unittest.TestResult) -> unittest.TestResult:
    return result


def _last(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from: a client has errors of its own for a lost connection."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    for one in waiting:
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
