"""Declarations: a command, how to know that it is ready, and options. Not running, never changed.

A declaration is checked when it is made, and makes an executor for each start.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from caseexec import ports
from caseexec.errors import DeclarationError
from caseexec.executors import (
    CommandExecutor,
    Executor,
    HTTPExecutor,
    OutputExecutor,
    PidExecutor,
    TCPExecutor,
    UnixSocketExecutor,
)
from caseexec.executors.command import START_TIMEOUT, STOP_TIMEOUT, Command
from caseexec.placeholders import PLACEHOLDERS, fill, fill_command, names, nearest, pattern_problem
from caseexec.probes import Probe
from caseexec.probes.http import ANY_2XX

__all__ = [
    "CommandService",
    "HTTPService",
    "OutputService",
    "PidService",
    "Service",
    "TCPService",
    "UnixSocketService",
]


@dataclass(frozen=True)
class Service:
    """What all kinds of services have in common.

    :param command: what to run, a string or a sequence.
    :param host: the address it listens on.
    :param port: the port it listens on; 0: a free one is leased for each start.
    :param env: environment variables on top of the present ones.
    :param cwd: the directory to run it in.
    :param shell: let ``/bin/sh`` run the command.
    :param start_timeout: seconds until it must be ready.
    :param stop_timeout: seconds until it must have ended; then it is killed.
    :param stop_signal: asks it to end.
    :param kill_signal: ends it when it did not.
    :param stop_command: run first when it is stopped.
    :param expected_returncode: the exit status that is right when it was stopped, beside 0.
    :param probe: a further probe, or a function that is called with the executor; all must hold.
    :param listener: ``"ours"``, or ``"any"``: whoever listens may answer.
    :raises DeclarationError: a value that cannot be right.
    """

    command: Command | None = None
    _: KW_ONLY
    host: str = "127.0.0.1"
    port: int | None = 0
    env: Mapping[str, str] | None = None
    cwd: str | os.PathLike[str] | None = None
    shell: bool = False
    start_timeout: float | None = START_TIMEOUT
    stop_timeout: float | None = STOP_TIMEOUT
    stop_signal: int = signal.SIGTERM
    kill_signal: int | None = None
    stop_command: Command | None = None
    expected_returncode: int | None = None
    probe: Probe | Callable[[Any], object] | None = None
    listener: str = "ours"
    #: What errors put before the name of an option.
    where: str = field(default="", repr=False, compare=False)

    #: The options in which placeholders are filled, beside the command.
    templates: ClassVar[tuple[str, ...]] = ("env", "cwd", "stop_command")
    #: The option that says when this kind is ready; it must not be empty.
    needed: ClassVar[str] = ""
    needs_port: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for option, problem in self._problems():
            raise DeclarationError(f"{self.where or type(self).__name__ + '.'}{option}", problem)

    # -- what can be wrong ---------------------------------------------------------------------------------------------

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from _command_problems("command", self.command, self.shell)
        if self.stop_command is not None:
            yield from _command_problems("stop_command", self.stop_command, self.shell)
        yield from self._port_problems()
        for option in ("start_timeout", "stop_timeout"):
            seconds = getattr(self, option)
            if seconds is not None and (not _is_number(seconds) or seconds <= 0):
                yield option, f"{seconds!r} is no number of seconds above 0 (None: no limit)"
        if self.listener not in ("ours", "any"):
            yield (
                "listener",
                f'{self.listener!r} is neither "ours" nor "any"{nearest(str(self.listener), ("ours", "any"))}',
            )
        if self.env is not None and not all(isinstance(text, str) for item in self.env.items() for text in item):
            yield "env", f"{self.env!r} must map strings to strings"
        if self.probe is not None and not callable(self.probe) and not isinstance(self.probe, Probe):
            yield "probe", f"{self.probe!r} is neither a function nor a probe"
        if self.needed and not getattr(self, self.needed):
            yield self.needed, f"it is not set: {_NEEDED[self.needed]}"
        yield from self._placeholder_problems()

    def _placeholder_problems(self) -> Iterator[tuple[str, str]]:
        for option in ("command", *self.templates):
            for name in names(getattr(self, option)):
                if name not in PLACEHOLDERS:
                    known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                    hint = f"{nearest(name, PLACEHOLDERS)}; write {{{{{name}}}}} for the braces themselves"
                    yield option, f"there is no placeholder {{{name}}} (there are {known}){hint}"

    def _port_problems(self) -> Iterator[tuple[str, str]]:
        if self.port is None and (self.needs_port or self._uses_port()):
            unix = "what listens on a Unix socket only is another kind: UnixSocketServiceMixin, with service_socket"
            yield "port", f"it is None: give the port it listens on, or 0 to lease a free one; {unix}"
        elif self.port is not None and (type(self.port) is not int or not 0 <= self.port < 65536):
            yield "port", f"{self.port!r} is no port: it must be a number from 1 to 65535, or 0 to lease a free one"
        elif self.port == 0 and self.needs_port and not self._uses_port():
            yield (
                "port",
                (
                    "it is 0, so a free port is leased, but nothing tells the command which one: "
                    "write {port} into the command or the environment, or name the port it listens on"
                ),
            )

    def _uses_port(self) -> bool:
        used = {name for option in ("command", *self.templates) for name in names(getattr(self, option))}
        return not used.isdisjoint({"port", "address", "url"})

    # -- what is made of it --------------------------------------------------------------------------------------------

    def scheme_name(self) -> str:
        """The scheme of ``{url}``."""
        return "tcp"

    def values(self, port: int | None, tmp: str) -> dict[str, str]:
        """What the placeholders stand for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        address = f"{host}:{port}" if port else ""
        url = f"{self.scheme_name()}://{address}"
        return {"host": self.host, "port": str(port or ""), "address": address, "url": url,
                "tmp": tmp, "python": sys.executable}  # fmt: skip

    def lease(self) -> int | None:
        """The port for one start: the given one, a leased one, or ``None`` when the service uses none."""
        if self.port == 0:
            return ports.free_port(self.host) if self.needs_port or self._uses_port() else None
        return self.port

    def executor(self, name: str, port: int | None, tmp: str) -> Executor:
        """An executor for one start, not started."""
        values = self.values(port, tmp)
        assert self.command is not None
        executor = self._make(
            fill_command(self.command, values, self.shell),
            values,
            cwd=None if self.cwd is None else fill(os.fspath(self.cwd), values),
            shell=self.shell,
            timeout=self.start_timeout,
            stop_timeout=self.stop_timeout,
            stop_signal=self.stop_signal,
            kill_signal=self.kill_signal,
            stop_command=self.stop_command and fill_command(self.stop_command, values, self.shell),
            expected_returncode=self.expected_returncode,
            envvars={variable: fill(text, values) for variable, text in (self.env or {}).items()},
            stderr=subprocess.STDOUT,  # In one log, in the order in which things were said.
            probe=self.probe,
            listener=self.listener,
            name=name,
        )
        executor.belongs_to_service(self.host, port, tmp)
        return executor

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> Executor:
        raise NotImplementedError(f"{type(self).__name__} is no kind of service, only the base of all kinds")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _command_problems(option: str, command: object, shell: bool) -> Iterator[tuple[str, str]]:
    if isinstance(command, str):
        try:
            if not command.strip() or not (shell or shlex.split(command)):
                yield option, "it is empty: name the program to run and its arguments"
        except ValueError as error:
            yield option, f"{command!r} cannot be split into arguments: {error}"
    elif isinstance(command, Sequence) and command:
        if shell:
            yield option, f"{command!r} is a list, but a shell runs a string: write it as one, or leave shell out"
        elif not all(isinstance(item, (str, os.PathLike, int)) for item in command):
            yield option, f"{command!r} must hold strings only"
    else:
        yield option, f"{command!r} is no command: name the program to run and its arguments, as a string or a list"


_NEEDED = {
    "banner": "give a regular expression that the output matches when the service is ready",
    "socket": "give the path of the Unix socket, such as {tmp}/service.sock",
    "pid_file": "give the path of the pid file, such as {tmp}/service.pid",
    "check": "give the command that succeeds when the service is ready, such as pg_isready -p {port}",
}


@dataclass(frozen=True)
class TCPService(Service):
    """Ready when it accepts TCP connections."""

    needs_port = True

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> TCPExecutor:
        return TCPExecutor(command, values["host"], int(values["port"]), **common)


@dataclass(frozen=True)
class HTTPService(Service):
    """Ready when it answers a request for *path* with *status*.

    :param path: what is asked for, with its query string.
    :param scheme: ``http`` or ``https`` (the certificate is not verified).
    :param status: a status code, or a regular expression that matches one.
    """

    _: KW_ONLY
    path: str = "/"
    scheme: str = "http"
    method: str = "GET"
    status: str | int = ANY_2XX
    headers: Mapping[str, str] | None = None

    templates = (*Service.templates, "path", "headers")
    needs_port = True

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if self.scheme not in ("http", "https"):
            yield "scheme", f"{self.scheme!r} is neither http nor https"
        if not isinstance(self.path, str) or not self.path.startswith("/"):
            yield "path", f"{self.path!r} must begin with a slash"
        if problem := pattern_problem(str(self.status)):
            yield "status", problem

    def scheme_name(self) -> str:
        """The scheme of ``{url}``."""
        return self.scheme

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> HTTPExecutor:
        headers = {header: fill(text, values) for header, text in (self.headers or {}).items()}
        path = fill(self.path, values)
        return HTTPExecutor(command, values["url"], self.status, self.method, headers=headers, path=path, **common)


@dataclass(frozen=True)
class OutputService(Service):
    """Ready when its output matches the regular expression *banner*."""

    _: KW_ONLY
    banner: str | re.Pattern[str] = ""

    templates = (*Service.templates, "banner")
    needed = "banner"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if isinstance(self.banner, str) and (problem := pattern_problem(self.banner)):
            yield "banner", problem

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> OutputExecutor:
        banner = fill(self.banner, values, re.escape) if isinstance(self.banner, str) else self.banner
        return OutputExecutor(command, banner, **common)


@dataclass(frozen=True)
class UnixSocketService(Service):
    """Ready when it accepts connections on the Unix socket *socket*."""

    _: KW_ONLY
    socket: str = ""

    templates = (*Service.templates, "socket")
    needed = "socket"

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> UnixSocketExecutor:
        return UnixSocketExecutor(command, fill(self.socket, values), **common)


@dataclass(frozen=True)
class PidService(Service):
    """Ready when it has written its pid into *pid_file*."""

    _: KW_ONLY
    pid_file: str = ""

    templates = (*Service.templates, "pid_file")
    needed = "pid_file"

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> PidExecutor:
        return PidExecutor(command, fill(self.pid_file, values), **common)


@dataclass(frozen=True)
class CommandService(Service):
    """Ready when the command *check* ends with status 0."""

    _: KW_ONLY
    check: Command = ""

    templates = (*Service.templates, "check")
    needed = "check"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from _command_problems("check", self.check, self.shell)

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> CommandExecutor:
        return CommandExecutor(command, fill_command(self.check, values, self.shell), **common)
