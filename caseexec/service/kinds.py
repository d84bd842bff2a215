"""One declaration for each kind of readiness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from caseexec.executors import (
    CommandExecutor,
    HTTPExecutor,
    OutputExecutor,
    PidExecutor,
    TCPExecutor,
    UnixSocketExecutor,
)
from caseexec.executors.command import Command
from caseexec.placeholders import fill, fill_command, pattern_problem
from caseexec.probes.http import ANY_2XX
from caseexec.service import problems
from caseexec.service.base import Service

__all__ = ["CommandService", "HTTPService", "OutputService", "PidService", "TCPService", "UnixSocketService"]


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
        yield from problems.of_request(self.scheme, self.path, self.method, str(self.status))
        yield from problems.of_strings("headers", self.headers)

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
        yield from problems.of_command("check", self.check, self.shell)

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> CommandExecutor:
        return CommandExecutor(command, fill_command(self.check, values, self.shell), **common)
