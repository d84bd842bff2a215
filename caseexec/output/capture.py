"""Where a command's streams go."""

from __future__ import annotations

import itertools
import subprocess
from typing import IO, Any

from caseexec.output.log import TAIL_BYTES, TAIL_LINES, OutputLog

__all__ = ["Capture"]


class Capture:
    """What a command writes, where it is captured: none, one or two logs.

    :param log: the one to write into, instead of new ones.
    :ivar logs: stdout's, or both streams' together; then stderr's, when it is captured apart.
    :ivar stdout: what to hand to :class:`subprocess.Popen`.
    :ivar stderr: likewise.
    """

    def __init__(self, log: OutputLog | None = None) -> None:
        self._given = log
        self.logs: list[OutputLog] = []
        self.stdout: int | IO[Any] | None = None
        self.stderr: int | IO[Any] | None = None

    def open(self, name: str, stdout: int | IO[Any] | None, stderr: int | IO[Any] | None) -> None:
        """Open a log for each stream that is to be a ``PIPE``; any other is handed on as it is."""
        self.stdout, self.stderr = self._opened(name, stdout), self._opened(name, stderr)

    def _opened(self, name: str, stream: int | IO[Any] | None) -> int | IO[Any] | None:
        if stream != subprocess.PIPE:
            return stream
        self.logs.append(self._given or OutputLog(name))
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
