"""One captured stream."""

from __future__ import annotations

import io
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from caseexec import holes
from caseexec.output.follower import Follower, left_out_line
from caseexec.output.search import CARRY, Search

__all__ = ["TAIL_BYTES", "TAIL_LINES", "OutputLog", "safe_name"]

TAIL_LINES = 40
TAIL_BYTES = 8 * 1024


def safe_name(text: str) -> str:
    """A text as part of a file name; of a long one the end, which tells more."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[-100:]


class OutputLog:
    """One captured stream. The file (0600, in the temporary directory) is there from :meth:`open` to :meth:`remove`.

    Text is decoded as UTF-8; what is not UTF-8 shows as U+FFFD.

    :param path: another file, which may be there already; it is then kept from one command to the next, until it is
        told to :meth:`close` or :meth:`remove`.
    :ivar path: the file.
    :ivar lasting: whether it is kept so.
    :ivar begin: where the output of the present command begins, in bytes.
    """

    def __init__(self, name: str = "service", path: str = "") -> None:
        # Not mkstemp: its lock would be one to wait for in a signal handler.
        unique = f"caseexec-{safe_name(name)}-{secrets.token_hex(4)}.log"
        self.path = path or os.path.join(tempfile.gettempdir(), unique)
        self.lasting = bool(path)
        self.begin = 0
        self._read_fd = -1
        self._write_fd: int | None = None
        self._searches: dict[re.Pattern[str], Search] = {}
        self._reader: io.TextIOWrapper | None = None
        self._last = ""

    def open(self) -> Self:
        """Make the file, for a command. Whoever has the log before can remove it, however this is interrupted.

        :raises OSError: it cannot be made.
        """
        if not os.path.exists(self.path):  # Not yet; or somebody has removed it between two commands.
            self.close()
        if self.closed:
            once = 0 if self.lasting else os.O_EXCL
            self._read_fd = os.open(self.path, os.O_RDWR | os.O_CREAT | once | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.begin, self._reader = self.mark(), None
        self._searches.clear()
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

    def is_empty(self) -> bool:
        """Whether nothing was ever written."""
        return self.closed or self.mark() == 0

    def since(self, mark: int) -> str:
        """The text that was written since *mark*; where its beginning was freed, a first line tells how much."""
        begin, text = self._read(mark, self.mark())
        return left_out_line(begin - mark) + text if begin > mark else text

    def tail_since(self, mark: int, lines: int = TAIL_LINES, limit: int = TAIL_BYTES) -> str:
        """The last of what was written since *mark*, as :meth:`tail`."""
        return self._tail(mark, lines, limit)

    def tail(self, lines: int = TAIL_LINES, limit: int = TAIL_BYTES) -> str:
        """The last *lines* lines, *limit* bytes at most; a first line in brackets tells how much is left out."""
        if self.closed:
            return self._last
        return self._tail(self.begin, lines, limit)

    def _tail(self, begin: int, lines: int, limit: int) -> str:
        while True:
            size = self.mark()
            start, read = self._read(max(begin, size - limit), size)
            if start <= size:  # Else it writes so fast that all that was asked for is freed.
                break
        kept = read.splitlines()[-lines:]
        text = "\n".join(kept)
        # splitlines drops the line ends, so what is left out can only be told to within the last of them.
        left_out = size - begin - len(text.encode(errors="replace")) - 1
        return left_out_line(left_out) + text if start > begin or left_out > len(kept) else text

    def find(self, pattern: re.Pattern[str], stop: Callable[[], bool] = lambda: False) -> int | None:
        """Search for a pattern in the present command's output: the end of the first match, in bytes.

        Each call goes on where the last one with this pattern ended; see :class:`Search`.
        """
        search = self._searches.setdefault(pattern, self.search(pattern, self.begin))
        return search.end if search.look(stop) else None

    def search(self, pattern: re.Pattern[str], start: int) -> Search:
        """A search of one's own, from a position in bytes on."""
        return Search(self.mark, self.read, pattern, start)

    def read(self, start: int, end: int) -> tuple[int, bytes]:
        """What stands between two positions, and where that begins: behind what was freed."""
        return holes.read(self._read_fd, start, end)

    def reader(
        self, alive: Callable[[], bool], pause: Callable[[float], object] = time.sleep, *, start: int = 0
    ) -> io.TextIOWrapper:
        """A text stream over the output from *start*, one for all callers.

        Like a pipe's it waits for more while *alive* is true.
        """
        if self._reader is None:
            raw = Follower(os.dup(self._read_fd), alive, pause, start)
            self._reader = io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8", errors="replace")
        return self._reader

    def line_end(self, position: int) -> int:
        """The end of the line that *position* is in; *position* itself while that line is not complete."""
        newline = os.pread(self._read_fd, CARRY, position).find(b"\n")
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

    def _read(self, start: int, end: int) -> tuple[int, str]:
        begin, data = self.read(start, end)
        return begin, data.decode("utf-8", "replace")
