"""Words for signals, exit statuses and times, and texts that fit where they are shown."""

from __future__ import annotations

import re
import signal

__all__ = ["exit_text", "printable", "seconds_text", "shorten", "signal_name"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def seconds_text(seconds: float) -> str:
    """``1 second``, ``30 seconds``."""
    return f"{seconds:g} second" + ("" if seconds == 1 else "s")


def signal_name(number: int) -> str:
    """Return the name of a signal (``SIGTERM``), or ``signal 99`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def shorten(text: str, length: int = 60) -> str:
    """A text in one line of at most *length* characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def printable(text: str) -> str:
    """A text with what a terminal would obey shown, and not done."""
    return _CONTROL.sub(lambda sign: repr(sign[0])[1:-1], text)


def exit_text(code: int) -> str:
    """Say how a process ended, from its return code (negative: killed by that signal, as in :mod:`subprocess`)."""
    if code < 0:
        return f"was killed by {signal_name(-code)}"
    meaning = {126: "the program could not be executed", 127: "the shell found no such command"}.get(code)
    if meaning is None and 128 < code < 128 + 65:
        meaning = f"128 + {signal_name(code - 128)}"
    return f"exited with status {code}" + (f" ({meaning})" if meaning else "")
