"""Ready when the service has written its pid file."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass

from caseexec import processes, record
from caseexec.errors import Owner
from caseexec.probes.base import NotReady, Target

__all__ = ["PidProbe", "signature"]

# Between making a pid file and writing into it, in seconds.
_GRACE = 0.05

Signature = tuple[int, int, int]


def signature(path: str) -> Signature | None:
    """What tells a file from an earlier one of its name; ``None`` without a regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):  # To open a pipe could wait for ever.
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class PidProbe:
    """Ready when the file exists, or has changed where there was one before.

    An empty file counts once it is as old as a service needs to write into it.

    :ivar before: the :func:`signature` of the file before the start.
    """

    path: str
    before: Signature | None = None

    def __str__(self) -> str:
        return f"the pid file {self.path}"

    @property
    def place(self) -> str:
        return f"pid file {self.path}"

    def check(self, target: Target, /) -> None:
        now = signature(self.path)
        if now is None:
            raise NotReady("there is no such file")
        if now == self.before:
            raise NotReady("the file is an old one, from before the start")
        _, modified, size = now
        if size == 0 and abs(time.time() - modified / 1e9) < _GRACE:
            raise NotReady("the file is still empty")

    def occupant(self) -> Owner | None:
        if signature(self.path) is None:
            return None
        pid = self._pid()
        if pid is None:
            return Owner()
        status = processes.table().status(pid)
        # A stale file: its process is gone.
        return None if status is None or status.zombie else record.owner(pid)

    def thief(self) -> Owner | None:
        owner = self.occupant()
        return owner if owner and owner.pid else None

    def _pid(self) -> int | None:
        """The number in the file."""
        try:
            with open(self.path, "rb") as file:
                first = file.read(64).split()
        except OSError:
            return None
        return int(first[0]) if first and first[0].isdigit() else None
