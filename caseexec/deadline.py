"""One deadline for everything that a caller waits for, and the one wait loop with its back-off."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator

from caseexec.errors import SCALE, DeclarationError

__all__ = ["Deadline", "scaled", "timeout_scale"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# The pause is a share of the time already waited: that share is also the most that polling can add to a wait.
SHARE = 0.02
SHORTEST = 0.0005
LONGEST = 0.05


def timeout_scale() -> float:
    """What the timeouts of starts and stops are multiplied by, according to the environment; 0: they have no limit.

    :raises DeclarationError: it is no such number.
    """
    given = os.environ.get(SCALE, "")
    try:
        scale = float(given or 1)
    except ValueError:
        scale = math.nan
    if not 0 <= scale < math.inf:
        problem = (
            f"{given!r} is nothing to multiply timeouts by: give a number such as 3 or 0.5, or 0 for no limit at all"
        )
        raise DeclarationError(SCALE, problem)
    return scale


def scaled(seconds: float | None, scale: float) -> float | None:
    """A timeout with the scale applied; ``None``: no limit."""
    if scale == 1:
        return seconds
    return None if seconds is None or scale == 0 else seconds * scale


class Deadline:
    """A point in monotonic time, made once and handed down.

    :param timeout: seconds from now; ``None`` means never.
    :ivar watchers: functions that are called again and again while somebody waits, at least every 50 milliseconds; they
        must not raise, and cost next to nothing.
    """

    def __init__(
        self,
        timeout: float | None,
        *,
        _clock: Callable[[], float] = time.monotonic,
        _parent: Deadline | None = None,
    ) -> None:
        self._clock = _clock
        self._parent = _parent
        self.timeout = timeout
        self.started = _clock()
        self._end = math.inf if timeout is None else self.started + timeout
        self.watchers: list[Callable[[], object]] = []

    def within(self, timeout: float | None) -> Deadline:
        """A deadline that ends after that many seconds, or with this one, also when this one is expired later."""
        return Deadline(timeout, _clock=self._clock, _parent=self)

    def expire(self) -> None:
        """End it now, from any thread: a wait on it has its last turn at most 50 milliseconds later."""
        self._end = -math.inf

    def remaining(self) -> float:
        """Seconds left, never below 0; ``math.inf`` without a timeout."""
        left = max(0.0, self._end - self._clock())
        return left if self._parent is None else min(left, self._parent.remaining())

    def elapsed(self) -> float:
        """Seconds since the deadline was made."""
        return self._clock() - self.started

    def expired(self) -> bool:
        """Whether the time is over."""
        return self.remaining() <= 0

    def at_most(self, seconds: float) -> float:
        """*seconds*, or what is left when that is less: the timeout of a single blocking call (above 0)."""
        return max(SHORTEST, min(seconds, self.remaining()))

    def turns(self, pause: Callable[[float], object] = time.sleep, *, longest: float = LONGEST) -> Iterator[float]:
        """Yield the elapsed seconds, again and again, until the time is over; there is at least one turn.

        Between two turns it calls *pause* with 2 % of the time already waited, at least half a millisecond and at
        most *longest* seconds. A *pause* that comes back early (the process ended) begins the next turn at once.
        """
        while True:
            elapsed = self.elapsed()
            yield elapsed
            if self.expired():
                return
            self._pause(pause, min(max(SHORTEST, SHARE * elapsed), longest))

    def _pause(self, pause: Callable[[float], object], seconds: float) -> None:
        """Pause in pieces, as another thread may end the time meanwhile."""
        while True:
            before, piece = self._clock(), min(seconds, LONGEST, self.remaining())
            pause(piece)
            self._call_watchers()
            seconds -= piece
            came_back_early = self._clock() < before + piece - SHORTEST
            if seconds <= 0 or came_back_early or self.expired():
                return

    def _call_watchers(self) -> None:
        for watcher in self.watchers:
            watcher()
        if self._parent is not None:
            self._parent._call_watchers()
