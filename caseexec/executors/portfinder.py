"""The port of a command that chooses it by itself, and says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from caseexec.deadline import Deadline
from caseexec.errors import DeclarationError
from caseexec.output import OutputLog, Search

__all__ = ["PortFinder"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


# Behind a port that is the last that was written (seconds).
_SILENCE = 1.0


class PortFinder:
    """Looks for the port in what a command writes: no lease, and no race for it.

    :param pattern: a regular expression whose first group is the port; ``^`` and ``$`` are the ends of a line.
    """

    def __init__(self, pattern: str | re.Pattern[str]) -> None:
        self._pattern = pattern if isinstance(pattern, re.Pattern) else re.compile(pattern, re.MULTILINE)
        self._searches: list[Search] = []
        # Where a match has ended that was the last that was written, and for how long to wait for more.
        self._end: tuple[int, Deadline] | None = None

    def __str__(self) -> str:
        return f"output that matches {self._pattern.pattern!r}, to know its port"

    def begin(self) -> None:
        """Forget the port of a former start."""
        self._searches.clear()
        self._end = None

    def look(self, logs: Sequence[OutputLog], stop: Callable[[], bool]) -> int | None:
        """The port; ``None`` while it is not known.

        :raises DeclarationError: what the group has matched is none.
        """
        self._searches = self._searches or [log.search(self._pattern, log.begin) for log in logs]
        for search in self._searches:
            match = search.look(stop)
            if match and self._is_whole(search.end, search.seen):
                return self._port(match[1])
        return None

    def _is_whole(self, end: int, seen: int) -> bool:
        """Whether more was written behind a match, or nothing for a while: a port may come in two pieces."""
        if end < seen:
            return True
        if self._end is None or self._end[0] != seen:
            self._end = seen, Deadline(_SILENCE)
        return self._end[1].expired()

    def _port(self, text: str | None) -> int:
        if text is None or not text.isdecimal() or not 0 < int(text) < 65536:
            problem = f"the first group of {self._pattern.pattern!r} has matched {text!r}, which is no port"
            raise DeclarationError("port_pattern", problem)
        return int(text)
