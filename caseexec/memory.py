"""Temporary files in memory, where there is plenty of it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

__all__ = ["place"]

# Where Linux has files in memory, and where it has temporary ones when nobody wants them elsewhere.
_MEMORY, _USUAL = "/dev/shm", "/tmp"  # noqa: S108
_CGROUP = "/sys/fs/cgroup"
# What must be left, of the room for such files and of memory itself (bytes).
_AMPLE = 4 << 30


def place() -> str | None:
    """A directory whose files are in memory.

    :returns: ``None``: there is none, or not enough memory, or the user wants temporary files elsewhere (``TMPDIR``).
    """
    if tempfile.gettempdir() != _USUAL or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return None
    with suppress(OSError, ValueError, StopIteration):
        room = os.statvfs(_MEMORY)
        if min(room.f_bavail * room.f_frsize, _available(), _allowed()) >= _AMPLE:
            return _MEMORY
    return None


def _available() -> int:
    with open("/proc/meminfo") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith("MemAvailable:"))
    return int(kilobytes) << 10


def _allowed() -> int:
    """What a container may still take."""
    try:
        with open(f"{_CGROUP}/memory.max") as limit, open(f"{_CGROUP}/memory.current") as current:
            return int(limit.read()) - int(current.read())
    except (OSError, ValueError):  # There is no limit: "max".
        return _AMPLE
