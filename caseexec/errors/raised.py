"""The errors."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from caseexec.errors.facts import Facts, Owner
from caseexec.errors.text import SCALE, exit_text, seconds_text

__all__ = [
    "AlreadyRunning",
    "CommandNotExecutable",
    "CommandNotFound",
    "DeclarationError",
    "ExecutorError",
    "PreparationFailed",
    "ProcessExitedWithError",
    "ProcessFinishedWithError",
    "TimeoutExpired",
    "UnsupportedPlatform",
]

_Error = TypeVar("_Error", bound="ExecutorError")


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
        given = "" if self.timeout is None else f" after {seconds_text(self.timeout, self.facts.scale)}"
        return f"{self.facts.who} timed out{given}: it was not ready"

    def way_out(self) -> str:
        if self.facts.existing:
            return f"It is said to be there already ({self.facts.existing}): is it? Unset that to have it started."
        setting, code = self.facts.setting("start_timeout"), self.facts.returncode
        slow = f"A slow machine? Raise {setting}, or all timeouts with {SCALE}."
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
        port = self.place.rpartition(":")[2] if self.place.startswith("port") else ""
        owner = self.owner or Owner()
        end = owner.way_out(port)
        if owner.origin:
            return f"{owner.origin}\n  {end}\n  {self._other_way()}"
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
        if self.exit_code < 0:
            return "That was not the stop signal: it crashed, or somebody else killed it."
        return (
            "Status 0, the stop signal and 128 + the stop signal count as stopped. "
            f"Is this one right too? Name it in {self.facts.setting('expected_returncode')}."
        )


class PreparationFailed(ExecutorError):
    """What a ready-made service needs before it can start could not be made.

    :ivar exit_code: how that command ended, as in :mod:`subprocess`; ``None``: it was not done in time.
    """

    def __init__(self, executor: Any, command: Iterable[str], exit_code: int | None, output: str) -> None:
        super().__init__(executor)
        self.exit_code = exit_code
        shown = shlex.join(command)
        self.facts = replace(self.facts, command=shown, awaiting="", log_paths=(), output=output.strip("\n"))

    def headline(self) -> str:
        how = "was not done in time" if self.exit_code is None else exit_text(self.exit_code)
        return f"{self.facts.who} could not be prepared: {self.facts.command.split()[0]} {how}"

    def way_out(self) -> str:
        if self.exit_code is None:
            return f"A slow machine? Raise {self.facts.setting('start_timeout')}, or all timeouts with {SCALE}."
        return ""


class _NotStarted(ExecutorError):
    remedy = "Install it"

    def __init__(
        self, executor: Any, problem: str, searched: Iterable[str] = (), option: str = "command", remedy: str = ""
    ) -> None:
        super().__init__(executor)
        self.remedy = remedy or ("Create it" if option == "cwd" else self.remedy)
        self.facts = replace(self.facts, awaiting="", log_paths=(), output="")
        self.problem = problem
        self.option = option
        self.searched = list(searched)

    def headline(self) -> str:
        return f"{self.facts.who} could not be started: {self.problem}"

    def way_out(self) -> str:
        where = f" Searched PATH: {':'.join(self.searched)}." if self.searched else ""
        return f"{self.remedy}, or change {self.facts.setting(self.option)}.{where}"


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

    :ivar where: the attribute (``module.Class.attribute``), argument or environment variable.
    :ivar problem: what is wrong with it, and the way out.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"
