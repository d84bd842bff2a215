"""A command whose start another thread may cancel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caseexec.errors import TimeoutExpired
from caseexec.executors.fate import Cancelled, Fate
from caseexec.executors.started import Started

__all__ = ["Cancellable"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Cancellable(Started):
    """A command whose start another thread may cancel."""

    _under_way = False

    def cancel(self) -> None:
        """End the start, or the wait, that is under way in another thread; this call does not wait for it.

        It soon raises :class:`caseexec.executors.fate.Cancelled`, with the command stopped, or killed when it does not
        hear, and its log removed. When no start is under way, the next one raises that, and runs nothing; when the
        command is ready, this does nothing.
        """
        if self._fate.decide(cancelled=True):
            deadline = self._deadline
            if deadline is not None:
                deadline.expire()

    @contextmanager
    def _cancellable(self) -> Iterator[None]:
        """A start or a wait; one within another is a part of that.

        :raises Cancelled: it was cancelled before it came to its end; nothing of it is left.
        """
        if self._under_way:
            yield
            return
        if self._fate.done:
            self._fate = Fate()
        try:
            self._under_way = True
            if self._fate.cancelled:
                raise Cancelled(self._who())
            yield
            self._fate.decide(cancelled=False)
            self._heed_cancel()
        except (Cancelled, TimeoutExpired) as error:
            if not self._fate.cancelled:
                raise
            self._fate = Fate()
            if isinstance(error, TimeoutExpired):  # Somebody's own wait: its time was over as it was cancelled.
                self._abort(keep_logs=False)
                self.remove_logs()
                raise Cancelled(self._who()) from error
            raise
        finally:
            self._under_way = False
            if self._owned is not None:
                self._fate.decide(cancelled=False)

    def _heed_cancel(self) -> None:
        if self._fate.cancelled:
            self._abort(keep_logs=False)
            raise Cancelled(self._who())

    def _abort(self, keep_logs: bool = True) -> None:
        raise NotImplementedError
