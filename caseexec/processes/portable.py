"""The process table of any POSIX system, through psutil."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from caseexec.processes.base import MARK, Identity, Moment, Status, send_by_pid

__all__ = ["Portable"]


class Portable:
    """Any POSIX system, through psutil; slower, and the cost grows with the number of processes."""

    def status(self, pid: int) -> Status | None:
        import psutil

        try:
            process = psutil.Process(pid)
            with process.oneshot():
                zombie = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
                return Status(Identity(pid, process.create_time()), process.ppid(), os.getpgid(pid), zombie)
        except (psutil.Error, OSError):
            return None

    def mark(self, pid: int) -> str | None:
        import psutil

        try:
            environment = psutil.Process(pid).environ()
            return environment.get(MARK) if environment else ""
        except (psutil.Error, OSError):
            return None

    def command(self, pid: int) -> Sequence[str]:
        import psutil

        try:
            return psutil.Process(pid).cmdline()
        except (psutil.Error, OSError):
            return []

    def children(self, pid: int) -> list[int]:
        import psutil

        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            return []

    def moment(self) -> Moment:
        # Start times are wall-clock here: of a boot time in whole seconds and of ticks, both rounded down.
        return Moment(0, 0, time.time() - 2)

    def since(self, moment: Moment) -> Iterable[int]:
        import psutil

        appeared = []
        for pid in psutil.pids():  # Not process_iter: it knows of a number that is used again only who had it before.
            with suppress(psutil.Error, OSError):
                if psutil.Process(pid).create_time() >= moment.born:
                    appeared.append(pid)
        return appeared

    def vanished_since(self, moment: Moment) -> bool:
        return False  # It is not told.

    def everybody(self) -> Iterable[int]:
        import psutil

        return psutil.pids()

    def holds_socket(self, pid: int, inode: int) -> bool:
        return False

    def inherited_mark(self, pid: int) -> str | None:
        return None

    def inherited_note(self, pid: int) -> str:
        return ""

    def send_group(self, leader: Identity, number: int) -> bool:
        return False

    def send(self, identity: Identity, number: int) -> bool:
        return send_by_pid(self, identity, number)
