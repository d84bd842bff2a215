"""What is waited for, told on stderr when it takes more than two seconds.

On a terminal there is one line for all that wait, rewritten in place once a second and gone when nobody waits any
more; elsewhere one line for each wait, once. No thread does that: who waits on a deadline calls its watchers. What goes
wrong here is not told, and ends no wait.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from caseexec.deadline import Deadline
from caseexec.errors import printable, shorten

__all__ = ["Story", "Waiting"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

Story = tuple[str, str, str]
"""Who is waited for; what for, to be read on behind that; and the last refusal, empty without one."""

_PATIENCE = 2.0
_EVERY = 1.0
_PREFIX = "caseexec: waiting for "
# Nobody reads more of it outside a terminal.
_LONGEST = 400
# Where a terminal does not tell its width.
_COLUMNS = 80
_CLEAR = "\x1b[K"


class Waiting:
    """A wait on a deadline, for a ``with`` block.

    :param deadline: what is waited on.
    :param story: is called when it is told, in any thread that waits.
    :ivar told: whether that was done, outside a terminal.
    """

    def __init__(
        self, deadline: Deadline, story: Callable[[], Story], *, _clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.deadline = deadline
        self._story = story
        self._clock = _clock
        self._due = _clock() + _PATIENCE
        self._board: _Board | None = None
        self.told = False

    def __enter__(self) -> Self:
        self.deadline.watchers.append(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.deadline.watchers.remove(self._look)
        if self._board is not None:
            self._board.leave(self)

    def _look(self) -> None:
        now = self._clock()
        if now >= self._due:
            self._board = self._board or _board()
            if self._board.tell(self, now):
                self._due = now + _EVERY

    def texts(self) -> tuple[str, str, str]:
        """All that there is to tell; and in short: who is waited for, and for how long."""
        who, what, refusal = "a service", "", ""
        with suppress(Exception):  # It asks a probe, which may be anybody's.
            who, what, refusal = map(printable, self._story())
        seconds = f"{int(self.deadline.elapsed())} s"
        limit = "" if self.deadline.timeout is None else f" of {round(self.deadline.timeout, 1):g}"
        return shorten(f"{who}{what}, {seconds}{limit}{refusal and ': '}{refusal}", _LONGEST), shorten(who), seconds


class _Board:
    """Where all waits of this process are told."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Re-entrant, as a signal handler may wait too.
        self._lock = threading.RLock()
        self._waits: list[Waiting] = []
        self._next = 0.0
        # The terminal with our line on it.
        self._terminal: Any = None

    def tell(self, wait: Waiting, now: float) -> bool:
        """Tell of a wait; ``False``: another thread is just writing."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            stream = getattr(sys, "stderr", None)
            if not _is_terminal(stream):
                self._tell_once(wait, stream)
            elif wait not in self._waits or now >= self._next:
                self._next = now + _EVERY
                if wait not in self._waits:
                    self._waits.append(wait)
                self._draw(stream)
        finally:
            self._lock.release()
        return True

    def leave(self, wait: Waiting) -> None:
        """Tell of it no more."""
        if self.pid != os.getpid():  # In a forked child, whose copy of the lock a thread may have that it has not.
            return
        with self._lock:
            if wait in self._waits:
                self._waits.remove(wait)
                self._draw(self._terminal)

    def _tell_once(self, wait: Waiting, stream: Any) -> None:
        if not wait.told:
            wait.told = True
            _write(stream, f"{_PREFIX}{wait.texts()[0]}\n")

    def _draw(self, stream: Any) -> None:
        if self._terminal is not None and (self._terminal is not stream or not self._waits):
            _write(self._terminal, f"\r{_CLEAR}")
            self._terminal = None
        if self._waits:
            self._terminal = stream
            _write(stream, f"\r{_line(self._waits, _columns(stream))}{_CLEAR}")


_shared = _Board()


def _board() -> _Board:
    """The one of this process; a forked child's knows of none of its parent's waits."""
    global _shared
    if _shared.pid != os.getpid():
        _shared = _Board()
    return _shared


def _is_terminal(stream: Any) -> bool:
    """Whether a line can be rewritten there."""
    with suppress(Exception):
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    return False


def _columns(stream: Any) -> int:
    """How much a line can hold and not be wrapped."""
    with suppress(Exception):
        return (os.get_terminal_size(stream.fileno()).columns or _COLUMNS) - 1
    return _COLUMNS - 1


def _write(stream: Any, text: str) -> None:
    with suppress(Exception):  # There may be none, or a closed one, or a broken pipe, or a narrow encoding.
        stream.write(text)
        stream.flush()


def _line(waits: Sequence[Waiting], columns: int) -> str:
    """The line that tells of all; the richest one that fits."""
    texts = [wait.texts() for wait in waits]
    full = _PREFIX + "; ".join(text for text, _, _ in texts)
    if len(texts) == 1 or _width(full) <= columns:
        return _cut(full, columns)
    room = columns - len(_PREFIX) - sum(len(seconds) + len(" , ") for _, _, seconds in texts) + len(", ")
    names = _shared_out([who for _, who, _ in texts], room)
    brief = (f"{who} {seconds}" for who, (_, _, seconds) in zip(names, texts, strict=True))
    line = _PREFIX + ", ".join(brief)
    return line if _width(line) <= columns else _cut(f"{_PREFIX}{len(texts)} services", columns)


def _shared_out(names: Sequence[str], room: int) -> list[str]:
    """Names that have a room together: the long ones are cut; their ends stay, as they tell more."""
    most = max(map(_width, names))
    while most > 4 and sum(min(_width(name), most) for name in names) > room:
        most -= 1
    return [_cut(name[::-1], most)[::-1] for name in names]


def _cut(text: str, width: int) -> str:
    """A text that is cut where it would be wider."""
    if _width(text) <= width:
        return text
    while text and _width(text) > width - 3:
        text = text[:-1]
    return text + "..."[: max(width, 0)]


def _width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in text)
