"""A service's captured output, in a file: its tail, what came since a mark, a search, a reader.

A file never blocks the service, however much it writes and whether or not somebody reads, and it outlives the service.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Self

from caseexec.deadline import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["TAIL_BYTES", "TAIL_LINES", "Capture", "OutputLog"]

TAIL_LINES = 40
TAIL_BYTES = 8 * 1024
_CARRY = _CHUNK = 8 * 1024


class OutputLog:
    """One captured stream. The file (0600, in the temporary directory) is there from :meth:`open` to :meth:`remove`.

    Text is decoded as UTF-8; what is not UTF-8 shows as U+FFFD.

    :ivar path: the file.
    """

    def __init__(self, name: str = "service") -> None:
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:100]
        # Not mkstemp: its lock would be one to wait for in a signal handler.
        self.path = os.path.join(tempfile.gettempdir(), f"caseexec-{safe}-{secrets.token_hex(4)}.log")
        self._read_fd = -1
        self._write_fd: int | None = None
        self._scanned: dict[re.Pattern[str], int] = {}
        self._found: dict[re.Pattern[str], int] = {}
        self._reader: io.TextIOWrapper | None = None
        self._last = ""

    def open(self) -> Self:
        """Make the file. Whoever has the log before can remove it, however this is interrupted.

        :raises OSError: it cannot be made.
        """
        self._read_fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Append mode: several processes write into it, and none overwrites another's lines.
            self._write_fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            self.remove()
            raise
        return self

    @property
    def writer(self) -> int:
        """The descriptor to hand to the process; see :meth:`close_writer`."""
        if self._write_fd is None:
            raise ValueError(f"the log {self.path} is no longer open for writing")
        return self._write_fd

    @property
    def closed(self) -> bool:
        """Whether it is not open, or no longer."""
        return self._read_fd < 0

    def close_writer(self) -> None:
        """Close our copy of :attr:`writer`, once the process has its own."""
        # Taken out before it is closed: an interrupt in between must not close somebody else's later.
        descriptor, self._write_fd = self._write_fd, None
        if descriptor is not None:
            os.close(descriptor)

    def mark(self) -> int:
        """The present end of the output in bytes, for :meth:`since`."""
        return os.fstat(self._read_fd).st_size

    def since(self, mark: int) -> str:
        """The text that was written since *mark*."""
        return self._read(mark, max(0, self.mark() - mark))

    def tail(self, lines: int = TAIL_LINES, limit: int = TAIL_BYTES) -> str:
        """The last *lines* lines, *limit* bytes at most; a first line in brackets tells how much is left out."""
        if self.closed:
            return self._last
        size = self.mark()
        start = max(0, size - limit)
        kept = self._read(start, size - start).splitlines()[-lines:]
        text = "\n".join(kept)
        # splitlines drops the line ends, so what is left out can only be told to within the last of them.
        left_out = size - len(text.encode(errors="replace")) - 1
        return f"[... {left_out} bytes before]\n{text}" if start or left_out > len(kept) else text

    def find(self, pattern: re.Pattern[str], stop: Callable[[], bool] = lambda: False) -> int | None:
        """Search for a pattern, where the last call with it had not yet looked: the end of the first match, in bytes.

        It is searched in pieces, and gives up between two of them when *stop* says so, as some patterns take very long
        on very long lines. ``^`` and ``$`` are the ends of a line. A match may be split over several writes, and its
        line need not be complete; it may span 8 KiB.
        """
        if pattern in self._found:
            return self._found[pattern]
        size = self.mark()
        start = self._scanned.get(pattern, 0)
        if size < start:  # A shell's "> /dev/stderr" truncates the file.
            start = 0
        while start < size and not stop():
            # One character more than the carry, and a search from behind it: "^" must not match in mid-line.
            begin = max(0, start - _CARRY - 1)
            data = os.pread(self._read_fd, start - begin + _CHUNK, begin)
            # Surrogates, to tell bytes from characters exactly.
            text = data.decode("utf-8", "surrogateescape")
            match = pattern.search(text, 1 if begin else 0)
            if match:
                end = begin + len(text[: match.end()].encode("utf-8", "surrogateescape"))
                self._found[pattern] = end
                return end
            start = begin + len(data)
            self._scanned[pattern] = start
        return None

    def reader(
        self, alive: Callable[[], bool], pause: Callable[[float], object] = time.sleep, *, start: int = 0
    ) -> io.TextIOWrapper:
        """A text stream over the output from *start*, one for all callers.

        Like a pipe's it waits for more while *alive* is true.
        """
        if self._reader is None:
            raw = _Follower(os.dup(self._read_fd), alive, pause, start)
            self._reader = io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8", errors="replace")
        return self._reader

    def line_end(self, position: int) -> int:
        """The end of the line that *position* is in; *position* itself while that line is not complete."""
        newline = os.pread(self._read_fd, _CARRY, position).find(b"\n")
        return position if newline < 0 else position + newline + 1

    def close(self) -> None:
        """Close every descriptor; the file, and the tail in memory, stay."""
        if self.closed:
            return
        with suppress(OSError):
            self._last = self.tail()
        self.close_writer()
        if self._reader is not None:
            with suppress(RuntimeError):  # A signal handler may be here while what it interrupted reads from it.
                self._reader.close()
        descriptor, self._read_fd = self._read_fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Close, and remove the file."""
        self.close()
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def _read(self, start: int, length: int) -> str:
        return os.pread(self._read_fd, length, start).decode("utf-8", "replace")


class Capture:
    """What a command writes, where it is captured: none, one or two logs.

    :ivar logs: stdout's, or both streams' together; then stderr's, when it is captured apart.
    :ivar stdout: what to hand to :class:`subprocess.Popen`.
    :ivar stderr: likewise.
    """

    def __init__(self) -> None:
        self.logs: list[OutputLog] = []
        self.stdout: int | IO[Any] | None = None
        self.stderr: int | IO[Any] | None = None

    def open(self, name: str, stdout: int | IO[Any] | None, stderr: int | IO[Any] | None) -> None:
        """Open a log for each stream that is to be a ``PIPE``; any other is handed on as it is."""
        self.stdout, self.stderr = self._opened(name, stdout), self._opened(name, stderr)

    def _opened(self, name: str, stream: int | IO[Any] | None) -> int | IO[Any] | None:
        if stream != subprocess.PIPE:
            return stream
        self.logs.append(OutputLog(name))
        return self.logs[-1].open().writer

    def close_writers(self) -> None:
        """Close our copies of the descriptors, once the process has its own."""
        for log in self.logs:
            log.close_writer()

    def tail(self, lines: int = TAIL_LINES, limit: int = TAIL_BYTES) -> str:
        """The last lines, at most *limit* bytes; of two streams half of each, under their names."""
        tails = [log.tail(lines, limit) for log in self.logs]
        if not all(tails) or len(tails) < 2:
            return "".join(tails)
        out, err = (log.tail(lines // 2, limit // 2) for log in self.logs)
        return f"[stdout]\n{out}\n[stderr]\n{err}"

    def story(self) -> str:
        """The last lines for an error: of a row of equal ones, as of an access log of our own probes, the last."""
        told = self.tail(50 * TAIL_LINES, 8 * TAIL_BYTES).split("\n")
        rows = [(line, len(list(same))) for line, same in itertools.groupby(told)]
        lines = [line if times == 1 else f"{line}\n[... {times} times]" for line, times in rows][-TAIL_LINES:]
        text = "\n".join(lines)
        return text if len(text) <= TAIL_BYTES else f"[...]\n{text[-TAIL_BYTES:]}"


class _Follower(io.RawIOBase):
    """Reads a growing file; its end is the end of whoever writes it."""

    def __init__(self, fd: int, alive: Callable[[], bool], pause: Callable[[float], object], start: int) -> None:
        self._fd = fd
        self._alive = alive
        self._pause = pause
        self._offset = start

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        for _ in Deadline(None).turns(self._pause):
            alive = self._alive()  # Asked before the read: what it wrote before it ended is not missed.
            data = os.pread(self._fd, len(view), self._offset)
            if data or not alive:
                break
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
