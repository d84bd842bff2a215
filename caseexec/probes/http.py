"""Ready when an HTTP request is answered with the right status, by our service."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit, urlunsplit

from caseexec.deadline import Deadline
from caseexec.errors import Owner, shorten
from caseexec.probes.base import NotReady, Target, refusal
from caseexec.probes.tcp import TCPProbe, refuse_self, require_ours

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

        deadline = Deadline(target.deadline.at_most(self.request_timeout or _REQUEST_TIMEOUT))
        connection = self._connection(deadline.at_most(_REQUEST_TIMEOUT))
        try:
            status, reason = self._ask(connection, target, deadline)
        except (OSError, HTTPException) as error:
            raise NotReady(refusal(error)) from error
        finally:
            connection.close()
        if str(status) != str(self.status) and not re.match(str(self.status), str(status)):
            raise NotReady(f"HTTP status {status} {reason}".rstrip())

    def _connection(self, timeout: float) -> HTTPConnection:
        import http.client

        at = self._tcp
        if urlsplit(self.url).scheme == "https":
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return http.client.HTTPSConnection(at.host, at.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(at.host, at.port, timeout=timeout)

    def _ask(self, connection: HTTPConnection, target: Target, deadline: Deadline) -> tuple[int, str]:
        at, parts = self._tcp, urlsplit(self.url)
        connection.connect()
        refuse_self(connection.sock)
        require_ours(target, at.host, at.port)
        body = urlencode(self.payload) if self.payload else None
        headers = dict(self.headers or {})
        if body:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        connection.request(self.method, urlunsplit(("", "", parts.path or "/", parts.query, "")), body, headers)
        return _answer(connection.sock, deadline)


def _answer(sock: socket.socket, deadline: Deadline) -> tuple[int, str]:
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
        sock.settimeout(deadline.at_most(_REQUEST_TIMEOUT))
        received = sock.recv(4096)
        if not received:
            raise ConnectionResetError(errno.ECONNRESET, "Connection closed without an answer")
        data += received
