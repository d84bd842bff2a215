"""What an executor runs, and with what settings."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Generic, Self, TypeVar, overload

from caseexec import registry, supervisor
from caseexec.deadline import LONGEST, scaled, timeout_scale
from caseexec.errors import CommandNotExecutable, CommandNotFound, DeclarationError, shorten
from caseexec.executors.fate import Fate
from caseexec.processes import MARK, chain

__all__ = ["START_TIMEOUT", "STOP_TIMEOUT", "Command", "CommandSettings", "fact", "program_name", "split"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

Command = str | Sequence[str]
_Value = TypeVar("_Value", covariant=True)


class fact(Generic[_Value]):  # noqa: N801
    """A property that a subclass which has an attribute of that name may assign over."""

    def __init__(self, compute: Callable[[Any], _Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...
    def __get__(self, instance: object | None, owner: type) -> _Value | Self:
        return self if instance is None else self._compute(instance)


class CommandSettings:
    """The arguments of an executor; :class:`caseexec.executors.SimpleExecutor` describes them."""

    # The mark of the group while it is started.
    _mark = ""

    def __init__(
        self,
        command: Command,
        cwd: str | os.PathLike[str] | None = None,
        shell: bool = False,
        timeout: float | None = START_TIMEOUT,
        sleep: float = LONGEST,
        stop_signal: int = signal.SIGTERM,
        kill_signal: int | None = None,
        expected_returncode: int | None = None,
        envvars: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.PIPE,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        popen_kwargs: Mapping[str, Any] | None = None,
        *,
        stop_timeout: float | None = STOP_TIMEOUT,
        stop_command: Command | None = None,
        daemonizes: bool = False,
        name: str = "",
    ) -> None:
        if isinstance(command, str):
            self.command = command
            # A shell takes what shlex may not: a here-document with an apostrophe.
            self.command_parts: Sequence[str] = [command] if shell else split(command)
        else:
            self.command = shlex.join(command)
            self.command_parts = command
        self._fate = Fate()
        self._name = name
        self._daemonizes = daemonizes
        self._cwd = cwd
        self._shell = shell
        self._scale = timeout_scale()
        self._timeout = scaled(timeout, self._scale)
        self._sleep = sleep
        self._expected_returncode = expected_returncode
        self._envvars = dict(envvars or {})
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._further_popen_kwargs = dict(popen_kwargs or {})
        self._plan = registry.StopPlan(
            stop_signal=stop_signal,
            kill_signal=kill_signal or registry.StopPlan.kill_signal,
            timeout=scaled(stop_timeout, self._scale),
            command=_stop_command(stop_command, shell),
            shell=isinstance(stop_command, str) and shell,
            cwd=cwd,
        )

    @property
    def envvars(self) -> dict[str, str]:
        """The environment of the command: the present one and the given variables (its mark is added at the start)."""
        return {**os.environ, **self._envvars}

    @property
    def _popen_kwargs(self) -> dict[str, Any]:
        settings = {"shell": self._shell, "cwd": self._cwd, "env": {**self.envvars, MARK: chain(self._mark)}}
        return {"text": True, **self._further_popen_kwargs, **settings}

    def _not_startable(
        self, error: OSError | ValueError, command: Command | None = None, option: str = "command"
    ) -> Exception:
        """What to tell of a command (this one, or a helper) that could not be started."""
        error.add_note(f"{self._who()} could not be started")
        if isinstance(error, DeclarationError):
            return error
        program = str((self.command_parts if command is None else command)[0])
        if isinstance(error, ValueError):  # A NUL in an argument or in the environment.
            return DeclarationError(option, f"{shorten(self.command)!r} cannot be run: {error}")
        if self._cwd is not None and not os.path.isdir(self._cwd):
            return CommandNotFound(self, f"the directory {os.fspath(self._cwd)!r} is no directory", option="cwd")
        path = self.envvars.get("PATH", os.defpath)
        found = shutil.which(error.filename or program, os.F_OK, path)
        # A directory of PATH that may not be entered makes a missing program look like one that may not be executed.
        if isinstance(error, FileNotFoundError) or (isinstance(error, PermissionError) and found is None):
            searched = [] if os.sep in program else path.split(os.pathsep)
            if os.path.exists(program):
                return CommandNotFound(self, f"the interpreter that {program!r} names in its first line does not exist")
            return CommandNotFound(self, f"there is no program {program!r}", searched, option)
        if isinstance(error, PermissionError):
            return CommandNotExecutable(self, f"the program {found!r} is not executable", (), option)
        return error.with_traceback(None)

    def _supervised_command(self, popen: dict[str, Any]) -> dict[str, Any]:
        """The arguments for :class:`subprocess.Popen` that run the command below a supervisor.

        :raises OSError: the program does not exist, or may not be executed; a supervisor could only fail later.
        """
        parts = list(map(os.fspath, self.command_parts))
        if self._shell:
            # As subprocess: to some shells it matters by which name they are called.
            parts = [os.fspath(popen.get("executable") or "/bin/sh"), "-c", self.command]
        program = os.fspath(popen.get("executable") or parts[0])
        beside = os.path.join(self._cwd or "", program) if os.sep in program else program
        path = self.envvars.get("PATH", os.defpath)
        if shutil.which(beside, path=path) is None:
            exists = shutil.which(beside, os.F_OK, path)
            raise PermissionError(errno.EACCES, program) if exists else FileNotFoundError(errno.ENOENT, program)
        args = supervisor.command(parts, program, self._plan.stop_signal)
        return {**popen, "args": args, "shell": False, "executable": None}

    @fact
    def program(self) -> str:
        """The program in a word or two; of an interpreter that runs a script or a module, that."""
        return shorten(self.command, 30) if self._shell else program_name(self.command_parts)

    def _who(self) -> str:
        return self._name or f"{type(self).__name__}({shorten(self.command)!r})"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self.command!r}>"


def program_name(parts: Sequence[str | os.PathLike[str]]) -> str:
    """The program of a command in a word or two; of an interpreter that runs a script or a module, that."""
    first, *rest = [os.path.basename(os.fspath(part)) for part in parts[:20]] or [""]
    if not first.startswith("python"):
        return first
    for option, value in zip(rest, [*rest[1:], ""], strict=True):
        if option in ("-m", "-c"):
            return f"{first} -m {value}" if option == "-m" else f"{first} -c"
        if not option.startswith("-"):
            return option
    return first


def _stop_command(command: Command | None, shell: bool) -> Command | None:
    if isinstance(command, str):
        return command if shell else split(command)
    return command and [os.fsdecode(part) for part in command]


def split(command: str) -> list[str]:
    """Split a command as a shell would.

    :raises DeclarationError: its quotes do not match.
    """
    try:
        return shlex.split(command)
    except ValueError as error:
        raise DeclarationError("command", f"{command!r} cannot be split into arguments: {error}") from error
