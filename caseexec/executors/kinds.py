"""One executor for each kind of readiness."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

from caseexec.errors import DeclarationError
from caseexec.executors.command import Command, fact
from caseexec.executors.waiting import Executor
from caseexec.output import OutputLog
from caseexec.probes import CommandProbe, HTTPProbe, OutputProbe, PidProbe, Probe, TCPProbe, UnixSocketProbe
from caseexec.probes.http import ANY_2XX
from caseexec.probes.pidfile import signature

__all__ = [
    "URL",
    "CommandExecutor",
    "HTTPExecutor",
    "OutputExecutor",
    "PidExecutor",
    "TCPExecutor",
    "UnixSocketExecutor",
]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class URL(str):
    """A URL: a string that also answers what :func:`urllib.parse.urlsplit` of it does (``hostname``, ``port``...)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parts, name)

    @property
    def parts(self) -> SplitResult:
        """The split URL."""
        return urlsplit(str(self))


class TCPExecutor(Executor):
    """Ready when the command accepts TCP connections.

    :param host: the address it listens on.
    :param port: the port it listens on.
    """

    def __init__(self, command: Command, host: str, port: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(command, *args, **kwargs)
        self.host = host
        self.port: int = _checked_port(port)

    def _own_probe(self) -> Probe | None:
        return TCPProbe(self.host, self.port)

    def _guards_port(self) -> bool:
        return False


class HTTPExecutor(TCPExecutor):
    """Ready when the command answers an HTTP request with the right status.

    :param url: the address, ``http`` or ``https``; its path and query string are what is asked for.
    :param status: a status code, or a regular expression that matches one. By default any 2xx.
    :param method: the request's method.
    :param payload: form fields to send.
    :param headers: the request's headers.
    :param request_timeout: seconds for one request, within the remaining time; 5 by default.
    :param path: what is asked for instead of the URL's own path and query.
    """

    DEFAULT_PORT = 80
    url: URL

    def __init__(
        self,
        command: Command,
        url: str,
        status: str | int = ANY_2XX,
        method: str = "HEAD",
        payload: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        request_timeout: float | None = None,
        *,
        path: str | None = None,
        **kwargs: Any,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeclarationError("url", f"{url!r} is no http:// or https:// URL with a host")
        if request_timeout is not None and request_timeout < 0:
            raise DeclarationError("request_timeout", f"{request_timeout} is negative")
        port = parts.port or (443 if parts.scheme == "https" else self.DEFAULT_PORT)
        super().__init__(command, parts.hostname, port, **kwargs)
        self.url = URL(url)
        self.status = str(status)
        self.status_re = re.compile(self.status)
        self.method = method
        self.payload = payload
        self.headers = headers
        self._request_timeout = request_timeout or None
        self._path = path

    def _set_port(self, port: int) -> None:
        super()._set_port(port)
        self.url = URL(self.url.parts._replace(netloc=self.address).geturl())

    def _own_probe(self) -> Probe | None:
        asked = self.url if self._path is None else f"{self.url.scheme}://{self.url.netloc}{self._path}"
        return HTTPProbe(asked, self.status, self.method, self.payload, self.headers, self._request_timeout)


class OutputExecutor(Executor):
    """Ready when the command has written something that matches; it may be in mid-line, and split over writes.

    :param banner: a regular expression; ``^`` and ``$`` are the ends of a line.
    """

    def __init__(self, command: Command, banner: str | re.Pattern[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(command, *args, **kwargs)
        if subprocess.PIPE not in (self._stdout, self._stderr):
            raise DeclarationError(
                "stdout", "nothing is captured, so no banner can be found: set it to subprocess.PIPE"
            )
        try:
            self._banner = OutputProbe(banner)
        except re.error as error:
            raise DeclarationError("banner", f"{banner!r} is no regular expression: {error}") from error

    def _own_probe(self) -> Probe | None:
        return self._banner

    def _reading_starts(self, log: OutputLog) -> int:
        """Behind the line of the banner, as that was read already."""
        banner = log.find(self._banner.pattern)
        return log.line_end(banner) if banner else log.begin


class UnixSocketExecutor(Executor):
    """Ready when the command accepts connections on a Unix stream socket.

    :param socket_name: the socket's path.
    """

    def __init__(self, command: Command, socket_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(command, *args, **kwargs)
        if not socket_name:
            raise DeclarationError("socket_name", "it is empty: name the path of the Unix socket")
        self.socket = socket_name

    @fact
    def address(self) -> str:
        """The socket's path."""
        return self.socket

    @fact
    def url(self) -> str:
        """``unix://path``."""
        return f"unix://{self.socket}"

    def _own_probe(self) -> Probe | None:
        return UnixSocketProbe(self.socket)


class PidExecutor(Executor):
    """Ready when the command has written its pid file.

    :param filename: the file's path.
    """

    def __init__(self, command: Command, filename: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(command, *args, **kwargs)
        if not filename:
            raise DeclarationError("filename", "it is empty: name the path of the pid file")
        self.filename = filename
        self._before = signature(filename)

    @fact
    def pid_file(self) -> str:
        """The file's path."""
        return self.filename

    def start(self) -> Self:
        """Start the command and wait until it has written the file anew; raises as :meth:`Executor.start`."""
        self._before = signature(self.filename)
        return super().start()

    def _own_probe(self) -> Probe | None:
        return PidProbe(self.filename, self._before)


class CommandExecutor(Executor):
    """Ready when a check command (``pg_isready -p 5433``) ends with status 0.

    :param check: the command; a string is run by a shell if the executor's own command is.
    """

    def __init__(self, command: Command, check: Command, *args: Any, **kwargs: Any) -> None:
        super().__init__(command, *args, **kwargs)
        if not check:
            raise DeclarationError("check", "it is empty: name the command that succeeds when the service is ready")
        self._check = CommandProbe(check, shell=self._shell and isinstance(check, str))

    def _own_probe(self) -> Probe | None:
        return self._check


def _checked_port(port: int) -> int:
    if not isinstance(port, int) or not 0 < port < 65536:
        raise DeclarationError("port", f"{port!r} is no port: it must be a number from 1 to 65535")
    return port
