"""One declaration for each kind of readiness."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from caseexec.executors import (
    CommandExecutor,
    HTTPExecutor,
    OneShotExecutor,
    OutputExecutor,
    PidExecutor,
    TCPExecutor,
    UnixSocketExecutor,
)
from caseexec.placeholders import fill, fill_command
from caseexec.probes.http import ANY_2XX
from caseexec.service import problems
from caseexec.service.base import Command, Service

__all__ = ["CommandService", "HTTPService", "OneShot", "OutputService", "PidService", "TCPService", "UnixSocketService"]


@dataclass(frozen=True, repr=False)
class TCPService(Service[TCPExecutor]):
    """Ready when it accepts TCP connections."""

    needs_port = True

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> TCPExecutor:
        return TCPExecutor(command, values["host"], int(values["port"]), **common)


@dataclass(frozen=True, repr=False)
class HTTPService(Service[HTTPExecutor]):
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

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> HTTPExecutor:
        headers = {header: fill(text, values) for header, text in (self.headers or {}).items()}
        path = fill(self.path, values)
        return HTTPExecutor(command, values["url"], self.status, self.method, headers=headers, path=path, **common)


@dataclass(frozen=True, repr=False)
class OutputService(Service[OutputExecutor]):
    """Ready when its output matches the regular expression *banner*."""

    _: KW_ONLY
    banner: str | re.Pattern[str] = ""

    templates = (*Service.templates, "banner")
    needed = "banner"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from problems.of_pattern("banner", self.banner)

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> OutputExecutor:
        banner = fill(self.banner, values, re.escape) if isinstance(self.banner, str) else self.banner
        return OutputExecutor(command, banner, **common)


@dataclass(frozen=True, repr=False)
class UnixSocketService(Service[UnixSocketExecutor]):
    """Ready when it accepts connections on the Unix socket *socket*."""

    _: KW_ONLY
    socket: str | os.PathLike[str] = ""

    templates = (*Service.templates, "socket")
    needed = "socket"
    paths = ("cwd", "socket")
    offers = (*Service.offers, "socket")
    of_port = ("port",)

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> UnixSocketExecutor:
        return UnixSocketExecutor(command, fill(os.fspath(self.socket), values), **common)


@dataclass(frozen=True, repr=False)
class PidService(Service[PidExecutor]):
    """Ready when it has written its pid into *pid_file*."""

    _: KW_ONLY
    pid_file: str | os.PathLike[str] = ""

    templates = (*Service.templates, "pid_file")
    needed = "pid_file"
    paths = ("cwd", "pid_file")
    offers = (*Service.offers, "pid_file")

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> PidExecutor:
        return PidExecutor(command, fill(os.fspath(self.pid_file), values), **common)


@dataclass(frozen=True, repr=False)
class CommandService(Service[CommandExecutor]):
    """Ready when the command *check* ends with status 0."""

    _: KW_ONLY
    check: Command = ""

    templates = (*Service.templates, "check")
    runs = ("command", "check")
    needed = "check"

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from problems.of_command("check", self.check, self.shell)

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> CommandExecutor:
        return CommandExecutor(command, fill_command(self.check, values, self.shell), **common)


@dataclass(frozen=True, repr=False)
class OneShot(Service[OneShotExecutor]):
    """A command that does its work and ends with status 0, before what needs it starts: a migration, a certificate."""

    keeps_running = False

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        for option in ("reset", "restart"):
            if getattr(self, option) != getattr(type(self), option):
                yield (
                    option,
                    "a OneShot has ended before the first test: leave it out (with scope='test' it runs for each)",
                )

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> OneShotExecutor:
        return OneShotExecutor(command, **common)
