"""A search in a growing log."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["CARRY", "Search"]

# How long a match may be, and how much is read at a time (bytes).
CARRY = 8 * 1024
_CHUNK = 64 * 1024


class Search:
    """A search in a growing log. Each look goes on where the last one ended. A match that was found stays, but
    one that ends with what was read is searched anew with what follows, as it may be another one then.

    It is searched in pieces, and gives up between two of them when it is told to, as some patterns take very long on
    very long lines. ``^`` and ``$`` are the ends of a line. A match may be split over several writes, and its line need
    not be complete; it may span 8 KiB.

    :param size: tells how long the log is, in bytes.
    :param read: tells what stands between two positions, and where that begins.
    :ivar end: the end of the match, in bytes.
    :ivar seen: how far the log was read for it.
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
        self._begin = self.seen = start
        self._match: re.Match[str] | None = None

    def look(self, stop: Callable[[], bool] = lambda: False) -> re.Match[str] | None:
        """Look where nobody had looked yet."""
        size = self._size()
        if size < self.seen:  # A shell's "> /dev/stderr" truncates the file.
            self._begin = self.seen = 0
        while (self._match is None or self.end == self.seen) and self.seen < size and not stop():
            # One character more than the carry, and a search from behind it: "^" must not match in mid-line.
            begin = max(self._begin, self.seen - CARRY - 1)
            start, data = self._read(begin, self.seen + _CHUNK)
            # Surrogates, to tell bytes from characters exactly.
            text = data.decode("utf-8", "surrogateescape")
            if start + len(data) <= self.seen:  # It was truncated just now.
                break
            self.seen = start + len(data)
            self._match = match = self._pattern.search(text, 1 if start > self._begin else 0)
            if match:
                self.end = start + len(text[: match.end()].encode("utf-8", "surrogateescape"))
        return self._match
