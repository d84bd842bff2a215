"""Ready when the service has written its pid file."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from caseexec import processes
from caseexec.errors import Owner
from caseexec.probes.base import NotReady, Target

__all__ = ["PidProbe"]

# Between making a pid file and writing into it, in seconds.
_GRACE = 0.05


@dataclass(frozen=True)
class PidProbe:
    """Ready when the file exists; a pid in it must be that of a living process.

    A file without a number in it is taken as it is, once it is as old as a service needs to write into it.
    """

    path: str

    def __str__(self) -> str:
        return f"the pid file {self.path}"

    @property
    def place(self) -> str:
        return f"pid file {self.path}"

    def check(self, target: Target, /) -> None:
        pid = self._pid()
        if pid is None:
            raise NotReady("there is no such file")
        if pid == 0 and abs(time.time() - self._modified()) < _GRACE:
            raise NotReady("the file has no process id in it yet")
        if pid and not self._lives(pid):
            raise NotReady(f"the file names pid {pid}, which is not running")

    def occupant(self) -> Owner | None:
        pid = self._pid()
        if pid is None or (pid and not self._lives(pid)):  # A stale file: its process is gone.
            return None
        return processes.describe(pid) if pid else Owner()

    def _pid(self) -> int | None:
        """The number in the file, 0 if there is none; ``None`` without a file."""
        try:
            with open(self.path, "rb") as file:
                first = file.read(64).split()
        except OSError:
            return 0 if os.path.isfile(self.path) else None
        return int(first[0]) if first and first[0].isdigit() else 0

    def _modified(self) -> float:
        try:
            return os.stat(self.path).st_mtime
        except OSError:
            return time.time()

    def _lives(self, pid: int) -> bool:
        status = processes.table().status(pid)
        return status is not None and not status.zombie
