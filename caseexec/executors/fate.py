"""What becomes of a start that another thread may cancel."""

from __future__ import annotations

__all__ = ["Cancelled", "Fate"]


class Cancelled(BaseException):
    """A start was cancelled. No :class:`Exception`: who takes each of those for "not ready yet" is to let this pass."""


class Fate:
    """What becomes of a start: it is cancelled or done. Whoever comes first decides, once for all, in any thread."""

    def __init__(self) -> None:
        self._decided: dict[str, bool] = {}

    def decide(self, *, cancelled: bool) -> bool:
        """Decide, if nobody has yet; whether it is cancelled."""
        return self._decided.setdefault("cancelled", cancelled)  # In one step: no lock could be left held by a fork.

    @property
    def cancelled(self) -> bool:
        """Whether it is cancelled."""
        return self._decided.get("cancelled", False)

    @property
    def done(self) -> bool:
        """Whether it came to its good end, and can't be cancelled any more."""
        return not self._decided.get("cancelled", True)
