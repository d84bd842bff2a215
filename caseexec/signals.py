"""A graceful end when the run is asked to end by a signal; only for those who ask for it."""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
from types import FrameType
from typing import Any

from caseexec import registry

__all__ = ["install_signal_handlers"]

_NAMES = ("SIGTERM", "SIGHUP")


def install_signal_handlers() -> None:
    """Have SIGTERM and SIGHUP stop this run's services gracefully before they do what they did.

    Without this they end the run at once, and the reaper ends the services, with less patience than their stop timeout.
    With it, stop commands and stop signals are given their time (five seconds in all, then SIGKILL); then the handler
    that was there before is called, or, when there was none, the signal ends the run. A signal that was ignored (as by
    ``nohup``) stays so; a second one while the services stop does at once what it did before. In a forked child the
    handler only does what was done before. To call this twice changes nothing.

    :raises ValueError: not called in the main thread, where Python wants signal handlers to be set.
    """
    # Looked for now, as its lock is no RLock: a handler that interrupts the first look would wait for itself.
    tempfile.gettempdir()
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None:
            _install(number)


def _install(number: int) -> None:
    before = signal.getsignal(number)
    # None: a handler that was not set by Python, and could not be set again.
    if before is None or before == signal.SIG_IGN or isinstance(before, _Handler):
        return
    signal.signal(number, _Handler(before))


class _Handler:
    def __init__(self, before: Any) -> None:
        self._before = before
        self._pid = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            if self._pid == os.getpid():
                signal.signal(number, self._before)
                registry.current_run().sweep()
        except Exception:
            traceback.print_exc()  # The signal may end the run before anybody else tells.
        finally:
            if callable(self._before):
                signal.signal(number, self)
                self._before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
