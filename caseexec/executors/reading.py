"""Reading what a command writes while it runs."""

from __future__ import annotations

import re

from caseexec.deadline import Deadline, scaled
from caseexec.errors import DeclarationError, OutputNotFound
from caseexec.executors.cancellable import Cancellable
from caseexec.output import TAIL_BYTES, TAIL_LINES
from caseexec.progress import Waiting

__all__ = ["OutputMark", "Reading"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

OutputMark = tuple[tuple[str, int], ...]
"""A point in the output: each log's file, and its length in bytes then."""


class Reading(Cancellable):
    """A command whose output is read while it runs."""

    def output_mark(self) -> OutputMark:
        """The present end of the output, for :meth:`output_since` and :meth:`wait_for_output`."""
        return tuple((log.path, log.mark()) for log in self._capture.logs if not log.closed)

    def output_since(self, mark: OutputMark) -> str:
        """Everything that was written since :meth:`output_mark`; stdout first, when both are apart."""
        told = _positions(mark)
        return "".join(log.since(told.get(log.path, 0)) for log in self._capture.logs if not log.closed)

    def tail_since(self, mark: OutputMark, lines: int = TAIL_LINES, limit: int = TAIL_BYTES) -> str:
        """The last lines of that, *limit* bytes of each stream at most."""
        told = _positions(mark)
        tails = (log.tail_since(told.get(log.path, 0), lines, limit) for log in self._capture.logs if not log.closed)
        return "\n".join(filter(None, tails))

    def wait_for_output(
        self, pattern: str | re.Pattern[str], timeout: float | None = 10.0, *, since: OutputMark | None = None
    ) -> re.Match[str]:
        """Wait until something that was written matches; the command runs on, whether it does or not.

        :param pattern: a regular expression; ``^`` and ``$`` are the ends of a line. A match may be split over writes;
            as what was written so far may end anywhere, let it go on behind a number (``in (\\d+) ms``).
        :param timeout: seconds; ``None``: no limit.
        :param since: only what was written since this :meth:`output_mark`; by default since the command's start.
        :returns: the first match.
        :raises OutputNotFound: there was none in time, or before the command ended.
        """
        try:
            compiled = re.compile(pattern) if isinstance(pattern, re.Pattern) else re.compile(pattern, re.MULTILINE)
        except (re.error, TypeError) as error:
            raise DeclarationError("pattern", f"{pattern!r} is no regular expression: {error}") from None
        if not isinstance(compiled.pattern, str):
            raise DeclarationError("pattern", f"{pattern!r} is one of bytes, but the output is text: leave out the b")
        told = _positions(since or ())
        searches = [log.search(compiled, told.get(log.path, log.begin)) for log in self._capture.logs if not log.closed]
        deadline = Deadline(scaled(timeout, self._scale))
        with Waiting(deadline, lambda: (self._who(), f": output that matches {compiled.pattern!r}", "")):
            for _ in deadline.turns(self._pause):
                lives = self._lives()  # Asked before: what it wrote before it ended is not missed.
                for search in searches:
                    if match := search.look(deadline.expired):
                        return match
                if not lives:
                    break
        raise OutputNotFound(self, compiled.pattern, deadline.timeout)


def _positions(mark: OutputMark) -> dict[str, int]:
    try:
        return dict(mark)
    except (TypeError, ValueError):
        raise DeclarationError("mark", f"{mark!r} is no mark: make one with output_mark()") from None
