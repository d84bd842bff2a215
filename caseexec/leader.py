"""A child process that is held: not reaped before that is asked for.

As long as it is there, alive or as a zombie, the kernel gives its number to nobody else, neither as a process nor as a
process group.
"""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Protocol

__all__ = ["Leader"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class _Watch(Protocol):
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Leader:
    """Our child, held.

    :param process: just started, and polled by nobody else.
    """

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self.process = process
        self._owner = os.getpid()
        self._exit: _Watch | None = None
        self._woken = False

    def poll(self) -> int | None:
        """Its return code, ``None`` while it runs. Does not reap it."""
        if self.process.returncode is not None or self._owner != os.getpid():
            return self.process.returncode
        if not hasattr(os, "waitid"):  # macOS before Python 3.13: to learn the status is to reap.
            return self.process.poll()
        try:
            ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # Somebody else in this program has reaped it.
            return self.process.poll()
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    @property
    def held(self) -> bool:
        """Whether it is unreaped: alive, or a zombie that keeps its number from being reused; not in a forked child."""
        self.poll()
        return self._owner == os.getpid() and self.process.returncode is None

    def pause(self, seconds: float) -> None:
        """Sleep; its end wakes the sleeper, once."""
        if self._exit is None and self.held:
            self._exit = _watch_exit(self.process.pid)
        if self._exit is None or self._woken:
            time.sleep(seconds)
        else:
            _wait_readable(self._exit, seconds)
            self._woken = self.poll() is not None

    def reap(self) -> int | None:
        """Let it go, if it has ended; its return code, ``None`` while it runs."""
        if self.poll() is not None:
            self.process.poll()  # Not wait(): a signal handler may be here while what it interrupted is there.
            if self.process.stdin is not None:
                # What was written last was never read; or a signal handler is here, and what it interrupted writes.
                with suppress(OSError, RuntimeError):
                    self.process.stdin.close()
            watch, self._exit = self._exit, None
            if watch is not None:
                watch.close()
        return self.process.returncode


def _watch_exit(pid: int) -> _Watch | None:
    """Something that becomes readable when the process ends, where there is such a thing."""
    try:
        if sys.platform == "linux":
            return io.FileIO(os.pidfd_open(pid))
        queue = select.kqueue()
        ended = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        queue.control([ended], 0)
        return queue
    except (AttributeError, OSError):
        return None


def _wait_readable(watch: _Watch, seconds: float) -> None:
    try:
        select.select([watch], [], [], seconds)
    except ValueError:  # A descriptor above FD_SETSIZE; poll() knows only whole milliseconds.
        poller = select.poll()
        poller.register(watch, select.POLLIN)
        poller.poll(seconds * 1000)
