"""The executor that starts and stops a command, and asks nothing of it."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from caseexec import registry, supervisor
from caseexec.deadline import Deadline, scaled
from caseexec.errors import (
    DeclarationError,
    ForcedKillWarning,
    LeakedProcessWarning,
    ProcessFinishedWithError,
    TimeoutExpired,
    UnsupportedPlatform,
    shorten,
)
from caseexec.executors.fate import Fate
from caseexec.executors.interludes import Interludes
from caseexec.group import Ending
from caseexec.output import Capture
from caseexec.progress import Story, Waiting

__all__ = ["SimpleExecutor"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# A start that failed is not worth the whole stop timeout: what is asked to end gets this many seconds.
_ABORT_GRACE = 1.0
# Nobody reads more of it in a record.
_LONGEST_COMMAND = 1000


class _NoLog(Exception):
    def __init__(self, reason: OSError) -> None:
        self.reason = reason


class SimpleExecutor(Interludes):
    """Runs a command; ready as soon as it is started.

    The command leads a process group (and session) of its own and dies with all its children, also when a shell runs
    it. Use it as a context manager, or call :meth:`start` and :meth:`stop`; one that is forgotten is ended when it is
    deleted, and at exit at the latest. In a forked child, which inherits the object, no method touches the command.

    :param command: a string, split as a shell would; or a sequence, taken as it is.
    :param cwd: the directory to run it in.
    :param shell: let ``/bin/sh`` run the string.
    :param timeout: seconds for the start, ``None`` for no limit.
    :param sleep: the longest pause between two checks in seconds; they are made as often as is sensible.
    :param stop_signal: asks the command to end.
    :param kill_signal: ends it when it did not; SIGKILL by default.
    :param expected_returncode: the exit status that is right when it was stopped, beside 0. By default the stop signal
        (``-15``, or ``143`` from a shell).
    :param envvars: environment variables on top of the present ones.
    :param stdin: as for :class:`subprocess.Popen`, by default a pipe that stays open.
    :param stdout: ``PIPE`` captures into a file (:meth:`output`, :meth:`tail`), so nothing blocks when nobody reads;
        everything else is as for :class:`subprocess.Popen`.
    :param stderr: likewise; ``STDOUT`` captures both together.
    :param popen_kwargs: further arguments for :class:`subprocess.Popen`.
    :param stop_timeout: seconds for the stop; after that the command is killed, with a :class:`ForcedKillWarning`.
    :param stop_command: run first when the command is stopped (``docker rm -f name``). It is given the time of the
        stop; then what is left gets the stop signal. Any exit status of the command is right then.
    :param daemonizes: the command goes to the background by itself and leaves no trace (its session, its parents, its
        environment). On Linux it runs below a small supervisor process then, that no descendant can leave; elsewhere
        this changes nothing. Not needed where caseexec can make a cgroup.
    :param name: what errors call it.
    :raises DeclarationError: an argument that cannot be right.
    """

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the command; does nothing when it is running.

        :raises CommandNotFound: the program or the directory does not exist.
        :raises UnsupportedPlatform: on Windows.
        """
        with self._cancellable():
            self._start()
        return self

    def _start(self) -> None:
        if self._lives():
            self._set_timeout()
            return
        if not self.command.strip():
            raise DeclarationError("command", "it is empty: name the program to run and its arguments")
        if self._owned is not None:  # It has ended, or is about to; nothing of it may remain.
            self.kill()
        if os.name != "posix":
            raise UnsupportedPlatform(self)
        self._refusal, self._returncode = "", None
        self._set_timeout()
        self._prepare()
        try:
            self._spawn()
        except _NoLog as error:
            error.reason.add_note(f"The output of {self._who()} is kept in the temporary directory (TMPDIR).")
            raise error.reason from None
        except (OSError, ValueError) as error:
            self._abort(keep_logs=False)
            # Without its frames: they hold the whole environment, and pytest would print it.
            raise self._not_startable(error) from None
        except BaseException:
            self._abort(keep_logs=False)
            raise

    def _prepare(self) -> None:
        """Do what must be done before the command can run; it is given the time of the start."""

    def _spawn(self) -> None:
        self._capture = Capture(self._lasting_log)
        supervised = self._daemonizes and supervisor.available()
        owned = registry.current_run().own(self._plan, self._capture.logs, self._about(), supervised)
        # Entered in the books first: from here on an interrupt at any point leaves nothing behind.
        self._owned, self._mark, owned.awaited = owned, owned.group.mark, self._awaited
        if self._plan.command:
            # It is told to the reaper, as text.
            environment = {os.fsdecode(name): os.fsdecode(value) for name, value in self.envvars.items()}
            owned.plan = replace(self._plan, environment=environment)
        owned.run.tell(owned)
        self._open_logs()
        streams = {"stdin": self._stdin, "stdout": self._capture.stdout, "stderr": self._capture.stderr}
        given = {name: stream for name, stream in streams.items() if stream is not None}
        popen = {"args": self.command if self._shell else self.command_parts, **self._popen_kwargs, **given}
        self._heed_cancel()
        owned.spawn(**(self._supervised_command(popen) if supervised else popen))
        self._capture.close_writers()

    def _about(self) -> registry.About:
        """What the record says of it."""
        stop = self._plan.command or ""
        return registry.About(
            service=self._name or self.program,
            command=shorten(self.command, _LONGEST_COMMAND),
            stop_command=shorten(stop if isinstance(stop, str) else shlex.join(stop), _LONGEST_COMMAND),
        )

    def _open_logs(self) -> None:
        try:
            name = self._name or os.path.basename(self.command_parts[0])
            self._capture.open(f"{self._mark}-{name}", self._stdout, self._stderr)
        except OSError as error:
            self._abort(keep_logs=False)
            raise _NoLog(error) from None

    def _set_timeout(self) -> None:
        self._deadline = Deadline(self._timeout)

    def check_timeout(self) -> bool:
        """Whether there is time left of the start (or of the stop), for loops of one's own."""
        return self._deadline is None or not self._deadline.expired()

    def wait_for(self, wait_for: Callable[[], bool]) -> Self:
        """Wait until a function returns true; it shares the timeout of the start.

        :raises TimeoutExpired: it did not in time; the command was ended.
        """
        with self._cancellable():
            # Kept, so that the probes wait on this very one.
            self._deadline = deadline = self._until()
            with Waiting(deadline, self._story):
                for _ in deadline.turns(self._pause, longest=self._sleep):
                    if self._fate.cancelled:
                        break
                    if wait_for():
                        return self
            self._heed_cancel()
            error = TimeoutExpired(self, self._timeout)
            self._abort()
            raise error

    def _story(self) -> Story:
        awaiting = self._awaiting()
        return self._about().title, f": {awaiting}" if awaiting else "", self._refusal

    def _abort(self, keep_logs: bool = True) -> None:
        """End a start that failed; the log stays, as the error names it."""
        if self._owned is not None:
            # When this is interrupted too, it stays in the books, and whoever comes next ends it.
            timeout = self._plan.timeout if self._plan.command else scaled(_ABORT_GRACE, self._scale)
            self._owned.stop(timeout=timeout)
            self._keep_logs = keep_logs
        if not self.existing:
            self.kill()  # A subclass may have something to clean up there.

    # -- stop ----------------------------------------------------------------------------------------------------------

    def stop(self, stop_signal: int | None = None, expected_returncode: int | None = None) -> Self:
        """Stop the command and all that descends from it; does nothing when it is not started.

        The stop command runs, the group gets the stop signal, and after the stop timeout what is left is killed with a
        :class:`ForcedKillWarning`. When this returns, nothing of it is alive.

        :param stop_signal: instead of the executor's own.
        :param expected_returncode: instead of the executor's own.
        :raises ProcessFinishedWithError: its exit status is neither 0 nor what a stop leads to.
        """
        self._require_ours("stopped")
        if not self._is_ours() or self._owned is None:
            return self
        number = stop_signal or self._plan.stop_signal
        asked, killed = self._owned.group.poll() is None, self._owned.group.killed
        self._set_timeout()
        ending = self._owned.stop(number)
        self._finished(ending)
        # After a stop that was interrupted it has been killed by us.
        if not (killed or ending.killed) and not self._is_right(ending.returncode, number, expected_returncode):
            error = ProcessFinishedWithError(self, ending.returncode or 0, asked)
            self._keep_logs = True
            self._forget()
            raise error
        # Only when all is done: a warning may be an error (-W error).
        late = (
            [ForcedKillWarning(self._facts(), ending.killed, number, self._plan.timeout or 0)] if ending.killed else []
        )
        self._forget()
        for warning in late:
            warnings.warn(warning, stacklevel=2)
        if ending.complaint:
            warnings.warn(ending.complaint, RuntimeWarning, stacklevel=2)
        return self

    def _is_right(self, returncode: int | None, stop_signal: int, expected: int | None) -> bool:
        expected = self._expected_returncode if expected is None else expected
        if expected is not None:
            return returncode in (None, 0, expected)
        return returncode in (None, 0, -stop_signal, 128 + stop_signal) or self._plan.command is not None

    def kill(self, wait: bool = True, sig: int | None = None) -> Self:
        """Kill the command and all that descends from it; does nothing when it is not started.

        :param wait: wait until it is gone; otherwise only send the signal.
        :param sig: instead of the executor's kill signal; SIGKILL follows if it did not do.
        """
        self._require_ours("killed")
        if not self._is_ours() or self._owned is None:
            return self
        number = sig or self._plan.kill_signal
        if not wait:
            self._owned.group.send(number)
            self._dying = True
            return self
        self._finished(self._owned.group.kill(number))
        self._forget()
        return self

    def discard(self) -> None:
        """Stop the command however it ends, without a word, and keep nothing of it; does nothing when not started."""
        if self._is_ours() and self._owned is not None:
            self._finished(self._owned.stop())
            self._keep_logs = False
            self._forget()

    def _finished(self, ending: Ending) -> None:
        self._returncode = ending.returncode

    def _forget(self) -> None:
        owned, keep_logs = self._owned, self._keep_logs
        self._owned, self._deadline, self._mark = None, None, ""
        self._keep_logs = self._dying = False
        if self._fate.done:
            self._fate = Fate()
        if owned is not None:
            owned.forget(keep_logs)

    def __copy__(self) -> Self:
        return self  # There is one command, and one who owns it.

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if not self._is_ours() or sys.is_finalizing():
            return
        living = self.living()
        self.kill()
        if living:
            why = "the executor was deleted while it ran; use it as a context manager, or call stop()"
            warnings.warn(LeakedProcessWarning(self._who(), self.command, living, why), stacklevel=2)
