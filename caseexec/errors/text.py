"""Words for signals, exit statuses and times, and texts that fit where they are shown."""

from __future__ import annotations

import re
import signal
from contextlib import suppress

__all__ = ["SCALE", "add_note", "exit_text", "printable", "seconds_text", "shorten", "signal_name", "text_of"]

SCALE = "CASEEXEC_TIMEOUT_SCALE"
"""The environment variable with what all timeouts of starts and stops are multiplied by; 0: they have no limit."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def seconds_text(seconds: float, scale: float = 1) -> str:
    """``1 second``, ``30 seconds``; when they are scaled ones, how they came about."""
    text = f"{seconds:g} second" + ("" if seconds == 1 else "s")
    return text if scale in (0, 1) else f"{text} ({seconds / scale:g} x {SCALE}={scale:g})"


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


def text_of(error: BaseException) -> str:
    """The text of an error, also of one that has none."""
    try:
        return str(error)
    except Exception as problem:
        return f"(its text can't be made: {type(problem).__name__})"


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error, once; one that takes none stays as it is, as it is the one to be told of."""
    with suppress(Exception):
        if note not in (getattr(error, "__notes__", None) or ()):
            error.add_note(note)
