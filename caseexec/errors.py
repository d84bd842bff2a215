"""Every error and warning: facts as attributes, text composed from them, picklable.

An error of an executor tells what was run, what was awaited and for how long, the last refusal, how the process
ended, and the last lines that it wrote. The facts are in :attr:`ExecutorError.facts`; the text is made of them.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

__all__ = [
    "AlreadyRunning",
    "BlindWarning",
    "CommandNotExecutable",
    "CommandNotFound",
    "DeclarationError",
    "ExecutorError",
    "Facts",
    "ForcedKillWarning",
    "LeakedProcessWarning",
    "Origin",
    "Owner",
    "ProcessExitedWithError",
    "ProcessFinishedWithError",
    "ReaperWarning",
    "RecordWarning",
    "ServiceNotStarted",
    "TimeoutExpired",
    "UnsupportedPlatform",
    "exit_text",
    "printable",
    "seconds_text",
    "shorten",
    "signal_name",
]

_Error = TypeVar("_Error", bound="ExecutorError")

# What an executor calls those settings that a declaration names otherwise.
_EXECUTOR_NAMES = {"start_timeout": "timeout", "pid_file": "filename", "socket": "socket_name", "env": "envvars"}


_LONGEST_COMMAND = 4000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def seconds_text(seconds: float) -> str:
    """``1 second``, ``30 seconds``."""
    return f"{seconds:g} second" + ("" if seconds == 1 else "s")


def signal_name(number: int) -> str:
    """Return the name of a signal (``SIGTERM``), or ``signal 99`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def shorten(text: str, length: int = 60) -> str:
    """A text in one line of at most *length* characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def printable(text: str) -> str:
    """A text with what a terminal would obey shown, and not done."""
    return _CONTROL.sub(lambda sign: repr(sign[0])[1:-1], text)


def exit_text(code: int) -> str:
    """Say how a process ended, from its return code (negative: killed by that signal, as in :mod:`subprocess`)."""
    if code < 0:
        return f"was killed by {signal_name(-code)}"
    meaning = {126: "the program could not be executed", 127: "the shell found no such command"}.get(code)
    if meaning is None and 128 < code < 128 + 65:
        meaning = f"128 + {signal_name(code - 128)}"
    return f"exited with status {code}" + (f" ({meaning})" if meaning else "")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The run that has started a process which carries caseexec's mark.

    :ivar run: its id; the record tells the rest, and all else is empty when there is none.
    :ivar records: the directory in which the record was looked for.
    :ivar pid: its process.
    :ivar alive: whether it runs.
    :ivar own: whether it is this very process.
    :ivar command: its command line.
    :ivar service: the service that the process belongs to.
    :ivar test_class: the test class that declares the service; empty for an executor.
    :ivar since: when the service was started, in seconds of the Unix epoch.
    """

    run: str
    records: str = ""
    pid: int | None = None
    alive: bool = False
    own: bool = False
    command: str = ""
    service: str = ""
    test_class: str = ""
    since: float = 0

    def __str__(self) -> str:
        if self.pid is None:
            return (
                f"It is a service of caseexec run {self.run}, of which there is no record in {self.records}: "
                "that run had another user, TMPDIR or XDG_RUNTIME_DIR."
            )
        of_class = f" of {self.test_class}" if self.test_class else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"It is {self.service}{of_class}, started {when} by caseexec run {self.run} {self._who()}."

    def _who(self) -> str:
        if self.own:
            return "(this very process)"
        command = f": {shorten(self.command, 100)}" if self.command else ""
        return f"(pid {self.pid}{command}), which {'is still running' if self.alive else 'has ended'}"

    def way_out(self) -> str:
        """How the process is ended."""
        if self.own:
            return "Stop it first"
        if self.pid is None:
            return "End that process"
        command = f"{shlex.quote(sys.executable or 'python')} -m caseexec reap {self.run}"
        return f"Wait for that run, or end its services: {command}" if self.alive else f"End it: {command}"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that holds what a service needs: a port, a Unix socket, a pid file.

    :ivar pid: its process id; ``None`` when it could not be seen (it belongs to another user or namespace).
    :ivar command: its command line, as far as it could be read.
    :ivar user: the name of the user that it runs as.
    :ivar origin: the run that has started it, when it carries caseexec's mark.
    """

    pid: int | None = None
    command: str = ""
    user: str = ""
    origin: Origin | None = None

    def __str__(self) -> str:
        of_user = f" of user {self.user}" if self.user else ""
        if self.pid is None:
            return f"a process{of_user} that could not be seen (another user's, or in another namespace)"
        return f"pid {self.pid} ({shorten(self.command, 200) or 'command unknown'}){of_user}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an executor knew when something went wrong.

    :ivar who: the executor or the test class; ``declared`` says which.
    :ivar declared: the executor was made of a test class's ``service_...`` attributes.
    :ivar command: what was run, as a shell would take it.
    :ivar awaiting: words that complete "waiting for ...".
    :ivar waited: seconds from the start of the command to the error.
    :ivar refusal: the last answer that was not yet "ready".
    :ivar pid: the process group's leader.
    :ivar returncode: how the leader had ended, ``None`` while it was running.
    :ivar log_paths: the files with everything that the command wrote: one, or one for stdout and one for stderr.
    :ivar output: the last lines of it.
    """

    who: str = ""
    declared: bool = False
    command: str = ""
    awaiting: str = ""
    waited: float | None = None
    refusal: str = ""
    pid: int | None = None
    returncode: int | None = None
    log_paths: tuple[str, ...] = ()
    output: str = ""

    @property
    def log_path(self) -> str | None:
        """The first of :attr:`log_paths`; ``None`` when nothing was captured."""
        return self.log_paths[0] if self.log_paths else None

    def setting(self, name: str) -> str:
        """Name the attribute or argument with which the user changes *name*."""
        return f"{self.who}.service_{name}" if self.declared else f"its {_EXECUTOR_NAMES.get(name, name)}"

    def lines(self) -> list[str]:
        """The facts below an error's first line, one each; those not known are left out."""
        command = textwrap.indent(textwrap.dedent(self.command).strip(), "    ").strip()
        if len(command) > _LONGEST_COMMAND:
            command = f"{command[:_LONGEST_COMMAND]} [... {len(command) - _LONGEST_COMMAND} more characters]"
        found = [f"  command: {command}"] if command else []
        if self.awaiting:
            found.append(f"  waiting for: {self.awaiting}")
        if self.refusal:
            found.append(f"  last refusal: {self.refusal}")
        if self.log_paths:
            found.append(f"  log: {' and '.join(self.log_paths)}")
            found.append("  last output:" if self.output else "  last output: none, it wrote nothing")
            found += [f"    {printable(line)}" for line in self.output.split("\n")]
        return found


def _rebuild(kind: type[_Error], state: dict[str, Any]) -> _Error:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    return error


class ExecutorError(Exception):
    """Base of the errors of a running command.

    :ivar executor: the executor it happened to; ``None`` once the error was pickled, its facts remain.
    :ivar facts: what was known, as :class:`Facts`.
    """

    def __init__(self, executor: Any) -> None:
        super().__init__()
        self.executor = executor
        told = getattr(executor, "_facts", None)
        self.facts: Facts = told() if callable(told) else Facts(who=str(executor))

    def headline(self) -> str:
        """The first line of the text."""
        return f"{self.facts.who} failed"

    def way_out(self) -> str:
        """What the user can do about it; empty when the facts speak for themselves."""
        return ""

    def __str__(self) -> str:
        way_out = self.way_out()
        return "\n".join([self.headline(), *([f"  {way_out}"] if way_out else []), *self.facts.lines()])

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline()[:120]}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # An executor holds a process and open files: it stays, the facts travel.
        return _rebuild, (type(self), {**self.__dict__, "executor": None})


class TimeoutExpired(ExecutorError):
    """The service was not ready in time; its processes were ended.

    :ivar timeout: the seconds that it was given; ``None``: without limit.
    """

    def __init__(self, executor: Any, timeout: float | None) -> None:
        super().__init__(executor)
        self.timeout = timeout

    def headline(self) -> str:
        given = "" if self.timeout is None else f" after {seconds_text(self.timeout)}"
        return f"{self.facts.who} timed out{given}: it was not ready"

    def way_out(self) -> str:
        code, slow = self.facts.returncode, f"A slow machine? Raise {self.facts.setting('start_timeout')}."
        if code is None and self.facts.refusal.startswith("HTTP status"):
            asked = ", ".join(self.facts.setting(name) for name in ("path", "method", "status"))
            return f"It answers, but not as awaited: {asked}. {slow}"
        if code is None:
            return slow
        return (
            f"The command itself had ended by then: it {exit_text(code)}. Is it meant to stay in the foreground, "
            f"or to go to the background by itself? For that there is {self.facts.setting('daemonizes')} = True. {slow}"
        )


class AlreadyRunning(ExecutorError):
    """Somebody else already holds what the service needs: its port, its Unix socket or its pid file.

    Often a process that leaked from an earlier test run which was stopped by force.

    :ivar place: what is held, in words (``port 127.0.0.1:6379``).
    :ivar owner: who holds it, as :class:`Owner`; ``None`` when that was not looked up.
    """

    def __init__(self, executor: Any, owner: Owner | None = None, place: str = "") -> None:
        super().__init__(executor)
        self.owner = owner
        self.place = place

    def headline(self) -> str:
        what = self.place or "what it needs"
        holder = f"held by {self.owner}" if self.owner else "taken, and who holds it could not be seen"
        if self.place.startswith("pid file") and not (self.owner and self.owner.pid):
            holder = "there already, and holds no process id"
        return f"{self.facts.who} seems to be already running: {what} is {holder}"

    def way_out(self) -> str:
        origin = self.owner.origin if self.owner else None
        if origin:
            return f"{origin}\n  {origin.way_out()}\n  {self._other_way()}"
        end = "End that process" if self.owner and self.owner.pid else "Find and end that process"
        if self.place.startswith("pid file"):
            return f"{end}, or remove the file if it is left from an earlier run."
        listener = f"{self.facts.setting('listener')} = 'any'" if self.facts.declared else "listener='any'"
        meant = f" Is it meant to answer? Set {listener}." if self.place.startswith("port") else ""
        return f"{end}, {self._other_way()[0].lower()}{self._other_way()[1:]}{meant}"

    def _other_way(self) -> str:
        if not self.place.startswith("port"):
            return "Or use another one."
        lease = "; 0 leases a free one" if self.facts.declared else ""
        return f"Or use another port ({self.facts.setting('port')}{lease})."


class ProcessExitedWithError(ExecutorError):
    """The command ended with an error before the service was ready.

    :ivar exit_code: its return code; negative: killed by that signal.
    """

    def __init__(self, executor: Any, exit_code: int) -> None:
        super().__init__(executor)
        self.exit_code = exit_code
        self.facts = replace(self.facts, returncode=exit_code)

    def headline(self) -> str:
        after = "" if self.facts.waited is None else f" after {self.facts.waited:.2f} s"
        return f"{self.facts.who} {exit_text(self.exit_code)}{after}, before it was ready"


class ProcessFinishedWithError(ProcessExitedWithError):
    """The command was stopped, or had ended by itself, with an exit status that does not mean success.

    :ivar asked: it was still running when it was asked to stop.
    """

    def __init__(self, executor: Any, exit_code: int, asked: bool = True) -> None:
        super().__init__(executor, exit_code)
        self.facts = replace(self.facts, awaiting="", refusal="")
        self.asked = asked

    def headline(self) -> str:
        if not self.asked:
            return f"{self.facts.who} had ended by itself before it was stopped: it {exit_text(self.exit_code)}"
        return f"{self.facts.who} {exit_text(self.exit_code)} when it was stopped"

    def way_out(self) -> str:
        if not self.asked:
            return ""
        return (
            "Status 0, the stop signal and 128 + the stop signal count as stopped. "
            f"Is this one right too? Name it in {self.facts.setting('expected_returncode')}."
        )


class _NotStarted(ExecutorError):
    remedy = "Install it"

    def __init__(self, executor: Any, problem: str, searched: Iterable[str] = (), option: str = "command") -> None:
        super().__init__(executor)
        self.facts = replace(self.facts, awaiting="", log_paths=())
        self.problem = problem
        self.option = option
        self.searched = list(searched)

    def headline(self) -> str:
        return f"{self.facts.who} could not be started: {self.problem}"

    def way_out(self) -> str:
        where = f" Searched PATH: {':'.join(self.searched)}." if self.searched else ""
        remedy = "Create it" if self.option == "cwd" else self.remedy
        return f"{remedy}, or change {self.facts.setting(self.option)}.{where}"


class CommandNotFound(_NotStarted, FileNotFoundError):
    """The program, or the directory to run it in, does not exist.

    :ivar problem: what is missing.
    :ivar searched: the directories that were searched for the program.
    """


class CommandNotExecutable(_NotStarted, PermissionError):
    """The program may not be executed.

    :ivar problem: which.
    """

    remedy = "Make it executable"


class UnsupportedPlatform(ExecutorError, NotImplementedError):
    """Processes can be started on POSIX systems only."""

    def headline(self) -> str:
        return f"{self.facts.who} could not be started: caseexec runs services on Linux and macOS, not on Windows"

    def way_out(self) -> str:
        return "Run the tests under WSL, or skip these classes on Windows: unittest.skipIf(os.name == 'nt', ...)."


class DeclarationError(ValueError, TypeError):
    """A declaration that cannot be right: an unknown attribute or placeholder, a value out of range.

    :ivar where: the attribute (``module.Class.attribute``) or argument.
    :ivar problem: what is wrong with it, and the way out.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class ServiceNotStarted(RuntimeError, AttributeError):
    """A test was run without its service: nobody called the mixin's ``setUpClass``.

    :ivar where: the test class.
    :ivar overriding: the class whose ``setUpClass`` stands before the mixin's; ``None``: the runner called none.
    """

    def __init__(self, where: str, overriding: str | None = None) -> None:
        super().__init__(where, overriding)
        self.where = where
        self.overriding = overriding

    def __str__(self) -> str:
        if self.overriding is not None:
            return (
                f"{self.where}: its service was not started, because {self.overriding}.setUpClass does not call "
                "super().setUpClass(). Call it, before anything that needs the service; likewise in tearDownClass."
            )
        return (
            f"{self.where}: its service was not started, because the test runner did not call setUpClass "
            "(as twisted.trial and zope.testrunner). Run this class with unittest, pytest or Django."
        )


class LeakedProcessWarning(ResourceWarning):
    """Processes that should have ended were found alive; they were ended now.

    :ivar who: the test class or executor.
    :ivar command: what was run.
    :ivar pids: the processes.
    :ivar why: how they came to be left.
    """

    def __init__(self, who: str, command: str, pids: Iterable[int], why: str) -> None:
        self.who, self.command, self.pids, self.why = who, command, list(pids), why
        super().__init__(who, command, self.pids, why)

    def __str__(self) -> str:
        pids = ", ".join(map(str, self.pids))
        return (
            f"{self.who} left processes behind (pid {pids}; command: {self.command}): {self.why}. For a service that "
            "goes to the background by itself there is service_daemonizes = True (of an executor: daemonizes=True)."
        )


class ForcedKillWarning(RuntimeWarning):
    """A service did not end within its stop timeout and was killed.

    :ivar facts: what was known, as :class:`Facts`.
    :ivar pids: the processes that were killed.
    :ivar signal: the stop signal that they had been given.
    :ivar timeout: the seconds that they had been given to end.
    """

    def __init__(self, facts: Facts, pids: Iterable[int], signal: int, timeout: float) -> None:
        self.facts, self.pids, self.signal, self.timeout = facts, list(pids), signal, timeout
        super().__init__(facts, self.pids, signal, timeout)

    def __str__(self) -> str:
        pids = ", ".join(map(str, self.pids))
        return (
            f"{self.facts.who} did not end within {seconds_text(self.timeout)} of {signal_name(self.signal)} and was "
            f"killed (pid {pids}; command: {self.facts.command}). Give it more time with "
            f"{self.facts.setting('stop_timeout')}, or another signal with {self.facts.setting('stop_signal')}."
        )


class BlindWarning(ResourceWarning):
    """Nothing could be seen of other processes, as this one has no file descriptor left; some may be left.

    The reaper looks again at the end of the run.

    :ivar mark: the mark of the service whose processes were looked for.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        super().__init__(mark)

    def __str__(self) -> str:
        return (
            "this process has no file descriptor left (ulimit -n), so it could not be seen whether all processes of "
            f"service {self.mark} have ended; caseexec's reaper ends them when this run ends"
        )


class ReaperWarning(RuntimeWarning):
    """The reaper, which ends what a killed run leaves behind, could not be started, or was found dead.

    :ivar problem: what happened.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)

    def __str__(self) -> str:
        return f"caseexec's reaper {self.problem}"


class RecordWarning(RuntimeWarning):
    """A record of a run could not be written, or is not to be trusted.

    :ivar path: the file or directory.
    :ivar problem: what is wrong with it.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(path, problem)

    def __str__(self) -> str:
        return f"{self.path} is ignored: {self.problem}"
