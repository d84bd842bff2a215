"""One deadline for everything that a caller waits for, and the one wait loop with its back-off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

__all__ = ["Deadline"]

# The pause is a share of the time already waited: that share is also the most that polling can add to a wait.
SHARE = 0.02
SHORTEST = 0.0005
LONGEST = 0.05


class Deadline:
    """A point in monotonic time, made once and handed down.

    :param timeout: seconds from now; ``None`` means never.
    """

    def __init__(self, timeout: float | None, *, _clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = _clock
        self.timeout = timeout
        self.started = _clock()
        self._end = math.inf if timeout is None else self.started + timeout

    def remaining(self) -> float:
        """Seconds left, never below 0; ``math.inf`` without a timeout."""
        return max(0.0, self._end - self._clock())

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
            pause(max(0.0, min(max(SHORTEST, SHARE * elapsed), longest, self.remaining())))
