"""Ready when an HTTP request is answered with the right status, by our service."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

from caseexec.deadline import Deadline
from caseexec.errors import Owner, shorten
from caseexec.probes.base import NotReady, Target, refusal
from caseexec.probes.tcp import TCPProbe, connected, refuse_self, require_ours
from caseexec.probes.wire import Wire

if TYPE_CHECKING:
    from http.client import HTTPConnection

__all__ = ["ANY_2XX", "HTTPProbe"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

ANY_2XX = r"^2\d\d$"
_REQUEST_TIMEOUT = 5.0
_LONGEST_LINE = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/\d[.\d]* +(\d{3}) *([^\r]*)")


@dataclass(frozen=True)
class HTTPProbe:
    """Ready when a request is answered with the status.

    The certificate of an ``https`` server is not verified: this asks whether it answers, not who it is.

    :ivar url: what is asked for, query string included; a fragment is not sent.
    :ivar status: a status code, or a regular expression that matches one from its beginning.
    :ivar request_timeout: seconds for one request, within the remaining time.
    """

    url: str
    status: str | int = ANY_2XX
    method: str = "HEAD"
    payload: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    request_timeout: float | None = None

    def __str__(self) -> str:
        wanted = "any 2xx" if self.status == ANY_2XX else self.status
        return f"{self.method} {self.url} to answer with status {wanted}"

    @property
    def _tcp(self) -> TCPProbe:
        parts = urlsplit(self.url)
        return TCPProbe(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def place(self) -> str:
        return self._tcp.place

    def occupant(self) -> Owner | None:
        return self._tcp.occupant()

    def thief(self) -> Owner | None:
        return self._tcp.thief()

    def check(self, target: Target, /) -> None:
        from http.client import HTTPException

        deadline = target.deadline.within(self.request_timeout or _REQUEST_TIMEOUT)
        try:
            status, reason = self._ask(target, deadline)
        except (OSError, HTTPException) as error:
            raise NotReady(refusal(error)) from error
        if str(status) != str(self.status) and not re.match(str(self.status), str(status)):
            raise NotReady(f"HTTP status {status} {reason}".rstrip())

    def _ask(self, target: Target, deadline: Deadline) -> tuple[int, str]:
        at, parts = self._tcp, urlsplit(self.url)
        sock = connected(at.host, at.port, deadline.at_most(_REQUEST_TIMEOUT), target.deadline)
        with closing(Wire(sock, deadline)) as wire:
            refuse_self(sock)
            require_ours(target, at.host, at.port)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Headers and body are two pieces.
            body = urlencode(self.payload) if self.payload else None
            headers = dict(self.headers or {})
            if body:
                headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
            asked = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            self._connection(wire).request(self.method, asked, body, headers)
            return _answer(wire, deadline)

    def _connection(self, wire: Wire) -> HTTPConnection:
        """What writes the request."""
        import http.client

        at = self._tcp
        if urlsplit(self.url).scheme == "https":
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            wire.encrypt(context, at.host)
            connection: HTTPConnection = http.client.HTTPSConnection(at.host, at.port, context=context)
        else:
            connection = http.client.HTTPConnection(at.host, at.port)
        connection.sock = cast(socket.socket, wire)
        return connection


def _answer(wire: Wire, deadline: Deadline) -> tuple[int, str]:
    """The first line of the answer, behind any "100 Continue"; the rest is of no interest.

    Read by hand, as http.client takes its timeout for each piece that arrives, and a server may trickle for ever.
    """
    data = b""
    while True:
        line, ended, _ = data.partition(b"\n")
        if ended or len(line) > _LONGEST_LINE:
            found = _STATUS_LINE.match(line)
            if not found:
                raise NotReady(f"it does not speak HTTP: {shorten(repr(line), 80)}")
            if not found[1].startswith(b"1"):
                return int(found[1]), shorten(found[2].decode("latin-1"), 80)
            _, ended, behind = data.partition(b"\r\n\r\n")
            if ended:
                data = behind
                continue
        if deadline.expired() or len(data) > _LONGEST_LINE:
            raise TimeoutError
        received = wire.recv(4096)
        if not received:
            raise ConnectionResetError(errno.ECONNRESET, "Connection closed without an answer")
        data += received
