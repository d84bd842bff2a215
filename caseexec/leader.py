"""A child process that is held: not reaped before that is asked for.

As long as it is there, alive or as a zombie, the kernel gives its number to nobody else, neither as a process nor as a
process group. So one thread does not reap it while another signals its group.
"""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import threading
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
        # Around all that reaps it, and around what relies on its being held. Re-entrant, as a signal handler may be
        # here while what it interrupted is there.
        self._reaping = threading.RLock()

    def poll(self) -> int | None:
        """Its return code, ``None`` while it runs. Does not reap it."""
        if self.process.returncode is not None or self._owner != os.getpid():
            return self.process.returncode
        with self._reaping:
            return self._poll()

    def _poll(self) -> int | None:
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

    def signal_group(self, number: int) -> None:
        """Signal the whole group that it leads, unless it is not held and the group's number may be somebody else's.

        :raises ProcessLookupError: nobody is left in the group.
        :raises PermissionError: only other users' processes are, or on macOS zombies.
        """
        if self._owner != os.getpid():  # Nor is the lock ours: a thread that was not forked may have it.
            return
        with self._reaping:
            if self.held:
                os.killpg(self.process.pid, number)

    def pause(self, seconds: float) -> None:
        """Sleep; its end wakes the sleeper, once."""
        watch = self._watch()
        if watch is None or self._woken:
            time.sleep(seconds)
        else:
            with suppress(ValueError, OSError):  # Another thread has reaped it, and closed what we watch.
                _wait_readable(watch, seconds)
            self._woken = self.poll() is not None

    def _watch(self) -> _Watch | None:
        if self._exit is None and self._owner == os.getpid():
            with self._reaping:
                if self._exit is None and self.held:
                    self._exit = _watch_exit(self.process.pid)
        return self._exit

    def reap(self) -> int | None:
        """Let it go, if it has ended; its return code, ``None`` while it runs."""
        if self._owner == os.getpid() and self.poll() is not None:
            with self._reaping:
                self.process.poll()  # Not wait(): a signal handler may be here while what it interrupted is there.
                watch, self._exit = self._exit, None
            if self.process.stdin is not None:
                # What was written last was never read; or a signal handler is here, and what it interrupted writes.
                with suppress(OSError, RuntimeError):
                    self.process.stdin.close()
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
