"""A stream over a growing file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from caseexec import holes
from caseexec.deadline import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Follower", "left_out_line"]


class Follower(io.RawIOBase):
    """Reads a growing file; its end is the end of whoever writes it. A line stands for what was freed before it."""

    def __init__(self, fd: int, alive: Callable[[], bool], pause: Callable[[float], object], start: int) -> None:
        self._fd = fd
        self._alive = alive
        self._pause = pause
        self._offset = start
        self._ready = b""
        self._in_line = False

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        for _ in Deadline(None).turns(self._pause):
            alive = self._alive()  # Asked before the read: what it wrote before it ended is not missed.
            self._ready = self._ready or self._read_on(len(view))
            if self._ready or not alive:
                break
        data, self._ready = self._ready[: len(view)], self._ready[len(view) :]
        view[: len(data)] = data
        return len(data)

    def _read_on(self, length: int) -> bytes:
        start, (begin, data) = self._offset, holes.read(self._fd, self._offset, self._offset + length)
        while begin > start and not data:
            start, (begin, data) = begin, holes.read(self._fd, begin, begin + length)
        left_out, self._offset = begin - self._offset, begin + len(data)
        if left_out:
            data = b"\n" * self._in_line + left_out_line(left_out).encode() + data
        if data:
            self._in_line = not data.endswith(b"\n")
        return data

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def left_out_line(length: int) -> str:
    """The line that stands for what is left out."""
    return f"[... {length} bytes before]\n"
