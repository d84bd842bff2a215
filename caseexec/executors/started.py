"""What an executor knows of its command, while it runs and afterwards."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import IO, Any

from caseexec import registry
from caseexec.deadline import Deadline
from caseexec.errors import Facts, NotOurs, exit_text, shorten
from caseexec.executors.command import CommandSettings, fact
from caseexec.output import TAIL_BYTES, TAIL_LINES, Capture, OutputLog

__all__ = ["Started"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Started(CommandSettings):
    """A command that may be started, by a subclass: its processes, its output, and how it ended."""

    _owned: registry.OwnedGroup | None = None
    _deadline: Deadline | None = None
    _refusal = ""
    _returncode: int | None = None
    _keep_logs = _dying = False
    # Whether what it started runs on without it, as after "docker run --detach"; None: that was not asked yet.
    _elsewhere: bool | None = None
    # Whether its start is over only when it is ready.
    _awaited = False
    # Never written to: each start has one of its own.
    _capture = Capture()
    #: What names a service that was there already and is used in place of one of ours; empty: nothing does.
    existing = ""
    # Where the output of all starts goes, when somebody else keeps it.
    _lasting_log: OutputLog | None = None

    @property
    def process(self) -> subprocess.Popen[Any] | None:
        """The leader; ``None`` when it is not started."""
        return self._owned.group.process if self._owned else None

    @fact
    def pid(self) -> int | None:
        """The leader's process id, which is its group's too; ``None`` when it is not started.

        With ``daemonizes`` the leader is the supervisor: a signal that is meant for the command goes to the group,
        ``os.killpg(executor.pid, signal.SIGHUP)``.
        """
        return self.process.pid if self.process else None

    @fact
    def log_path(self) -> str | None:
        """The file with the captured output; it is removed when the command was stopped without an error."""
        return self._capture.logs[0].path if self._capture.logs else None

    def _until(self) -> Deadline:
        return self._deadline or Deadline(self._timeout)

    def output(self) -> IO[Any] | None:
        """The command's stdout as a text stream, from its beginning; ``None`` when it is not started or captured.

        Like a pipe's, its ``read()`` waits for the end of the command. :meth:`tail` does not.
        """
        return self._stream(0) if self._stdout == subprocess.PIPE else None

    def err_output(self) -> IO[Any] | None:
        """The command's stderr, as :meth:`output`; ``None`` also when it goes where stdout goes."""
        return self._stream(-1) if self._stderr == subprocess.PIPE else None

    def _stream(self, index: int) -> IO[Any] | None:
        if self._owned is None:
            return None
        group = self._owned.group
        log = self._capture.logs[index]
        # A thread that reads at exit must not wait for a service that waits for the exit.
        at_work = threading.main_thread().is_alive
        return log.reader(lambda: group.poll() is None and at_work(), group.pause, start=self._reading_starts(log))

    def _reading_starts(self, log: OutputLog) -> int:
        return log.begin

    def tail(self, lines: int = TAIL_LINES, limit: int = TAIL_BYTES) -> str:
        """The last lines that the command wrote, at most *limit* bytes of each stream; also after it has ended."""
        return self._capture.tail(lines, limit)

    def remove_logs(self) -> None:
        """Remove what it captured, also when an error has named it; only after the command has ended."""
        for log in self._capture.logs:
            log.remove()

    def running(self) -> bool:
        """Whether the command is alive; or, when it ended with status 0, what it left in the background."""
        return self._lives()

    def _require_ours(self, what: str) -> None:
        """Make sure that it is ours to be stopped, killed...

        :raises NotOurs: it was there already.
        """
        if self.existing:
            raise NotOurs(self, what, self.existing)

    def _lives(self) -> bool:  # What a subclass makes of running() is its own affair.
        if self.existing:
            return True
        if self._owned is None or self.process is None or not self._is_ours() or self._dying:
            return False
        code = self._owned.group.poll()
        return code is None or (code == 0 and bool(self._owned.group.living()))

    def has_died(self) -> bool:
        """Whether it has ended by itself since it was ready, rather than to have been stopped or killed."""
        return self._is_ours() and not (self._dying or self._elsewhere or self._lives())

    def was_stopped(self) -> bool:
        """Whether it is not started, or no longer: it was stopped or killed."""
        return (self._owned is None or self._dying) and not self.existing

    def exit_code(self) -> int | None:
        """How it ended, as in :mod:`subprocess`; ``None`` when it runs, or was never started."""
        return self._owned.group.poll() if self._owned else self._returncode

    def _is_ours(self) -> bool:
        """Whether it is started, and by this process; a forked child inherits the object, but not the command."""
        return self._owned is not None and self._owned.group.ours

    def living(self) -> list[int]:
        """The processes of the command that are alive, its descendants in the background among them."""
        return self._owned.group.living() if self._owned is not None else []

    def _awaiting(self) -> str:
        """What is waited for after a start, in words that complete "waiting for ..."."""
        return ""

    def _facts(self) -> Facts:
        """What is known now, for errors."""
        return Facts(
            who=self._who(),
            command="" if self.existing else self.command,
            existing=self.existing,
            scale=self._scale,
            waited=self._deadline.elapsed() if self._deadline else None,
            awaiting=self._awaiting(),
            refusal=self._refusal,
            pid=self.process.pid if self.process else None,
            returncode=self.exit_code(),
            log_paths=tuple(log.path for log in self._capture.logs),
            output=self._capture.story(),
        )

    def _pause(self, seconds: float) -> None:
        if self._owned is not None:
            self._owned.group.pause(seconds)
        else:
            time.sleep(seconds)

    def __repr__(self) -> str:
        name = f" {self._name}" if self._name else ""
        return f"<{type(self).__name__}{name} {shorten(self.command)!r}: {self._state()}>"

    def _state(self) -> str:
        if self._owned is not None:
            code = self._owned.group.poll()
            return f"running, pid {self.pid}" if code is None else exit_text(code)
        return "not started" if self._returncode is None else exit_text(self._returncode)
