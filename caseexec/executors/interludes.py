"""Stopping, pausing and starting a command again in the middle of a test."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

from caseexec import processes
from caseexec.deadline import Deadline
from caseexec.executors.reading import Reading

__all__ = ["Interludes"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# A process stops as soon as the kernel gives it a turn; only one stuck in the kernel needs more.
_STOP_PATIENCE = 1.0


class Interludes(Reading):
    """What a test does to a command, which is as it was afterwards."""

    _pauses = 0

    def start(self) -> Self:  # noqa: D102
        raise NotImplementedError

    def stop(self, stop_signal: int | None = None, expected_returncode: int | None = None) -> Self:  # noqa: D102
        raise NotImplementedError

    def restart(self) -> Self:
        """Stop the command, unless it has ended, and start it again; it is ready when this returns.

        Its port and its directory stay.

        :raises ExecutorError: it did not end well, or did not start. In the first case it is started all the same.
        """
        self._require_ours("restarted")
        try:
            if self._lives():
                self.stop()
        finally:
            self.start()
        return self

    @contextmanager
    def stopped(self) -> Iterator[Self]:
        """Stop the command for the time of a ``with`` block and start it again, also when the block raises.

        Does nothing when it is not started.
        """
        self._require_ours("stopped")
        if not self._is_ours():
            yield self
            return
        self.stop()
        try:
            yield self
        finally:
            self.start()

    @contextmanager
    def paused(self) -> Iterator[Self]:
        """Pause the command, and all that descends from it, for the time of a ``with`` block (SIGSTOP, SIGCONT).

        In the block it takes no turn, but its connections and its port are there, as those of a machine that hangs.
        Afterwards, also when the block raises, it is waited for until it is ready; of blocks within each other, behind
        the outermost. Does nothing when it is not started.
        """
        self._require_ours("paused")
        if not self._lives() or self._owned is None:
            yield self
            return
        group = self._owned.group
        self._pauses += 1
        try:
            group.send(signal.SIGSTOP)
            for _ in Deadline(_STOP_PATIENCE).turns():
                if all(map(processes.is_stopped, group.living())):
                    break
            yield self
        finally:
            self._pauses -= 1
            if not self._pauses:
                group.send(signal.SIGCONT)
                if not self.was_stopped():
                    self._await_ready()

    def _await_ready(self) -> None:
        """Wait until it is ready again, after an interruption."""

    async def arestart(self) -> Self:
        """:meth:`restart`, while the event loop goes on."""
        await _in_thread(self.restart)
        return self

    @asynccontextmanager
    async def astopped(self) -> AsyncIterator[Self]:
        """:meth:`stopped`, while the event loop goes on; also a task that is cancelled leaves it started."""
        self._require_ours("stopped")
        if not self._is_ours():
            yield self
            return
        try:
            await _in_thread(self.stop)
            yield self
        finally:
            await _in_thread(self.start)


async def _in_thread(function: Callable[[], object]) -> None:
    """Call a function in a thread, to its end: when the task is cancelled meanwhile, that is raised afterwards."""
    import asyncio

    work, cancelled = asyncio.ensure_future(asyncio.to_thread(function)), None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # It was waited for; nobody is to be told that it was not.
        raise cancelled
    work.result()
