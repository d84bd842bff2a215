"""A search in a growing log."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["CARRY", "Search"]

# How long a match may be, and how much is read at a time (bytes).
CARRY = 8 * 1024
_CHUNK = 64 * 1024


class Search:
    """A search in a growing log. Each look goes on where the last one ended, and a match that was found stays.

    It is searched in pieces, and gives up between two of them when it is told to, as some patterns take very long on
    very long lines. ``^`` and ``$`` are the ends of a line. A match may be split over several writes, and its line need
    not be complete; it may span 8 KiB.

    :param size: tells how long the log is, in bytes.
    :param read: tells what stands between two positions, and where that begins.
    :ivar end: the end of the match, in bytes.
    """

    def __init__(
        self,
        size: Callable[[], int],
        read: Callable[[int, int], tuple[int, bytes]],
        pattern: re.Pattern[str],
        start: int,
    ) -> None:
        self.end = 0
        self._size = size
        self._read = read
        self._pattern = pattern
        self._begin = self._next = start
        self._match: re.Match[str] | None = None

    def look(self, stop: Callable[[], bool] = lambda: False) -> re.Match[str] | None:
        """Look where nobody had looked yet."""
        size = self._size()
        if size < self._next:  # A shell's "> /dev/stderr" truncates the file.
            self._begin = self._next = 0
        while self._match is None and self._next < size and not stop():
            # One character more than the carry, and a search from behind it: "^" must not match in mid-line.
            begin = max(self._begin, self._next - CARRY - 1)
            start, data = self._read(begin, self._next + _CHUNK)
            # Surrogates, to tell bytes from characters exactly.
            text = data.decode("utf-8", "surrogateescape")
            self._match = self._pattern.search(text, 1 if start > self._begin else 0)
            if start + len(data) <= self._next:  # It was truncated just now.
                break
            self._next = start + len(data)
            if self._match:
                self.end = start + len(text[: self._match.end()].encode("utf-8", "surrogateescape"))
        return self._match
