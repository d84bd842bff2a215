"""Ready when an HTTP request is answered with the right status, by our service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit, urlunsplit

from caseexec.errors import Owner
from caseexec.probes.base import NotReady, Target, refusal
from caseexec.probes.tcp import TCPProbe, refuse_self, require_ours

if TYPE_CHECKING:
    from http.client import HTTPConnection

__all__ = ["ANY_2XX", "HTTPProbe"]

ANY_2XX = r"^2\d\d$"
_REQUEST_TIMEOUT = 5.0


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

        connection = self._connection(target.deadline.at_most(self.request_timeout or _REQUEST_TIMEOUT))
        try:
            status, reason = self._ask(connection, target)
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

    def _ask(self, connection: HTTPConnection, target: Target) -> tuple[int, str]:
        at, parts = self._tcp, urlsplit(self.url)
        connection.connect()
        refuse_self(connection.sock)
        require_ours(target, at.host, at.port)
        body = urlencode(self.payload) if self.payload else None
        headers = dict(self.headers or {})
        if body:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        connection.request(self.method, urlunsplit(("", "", parts.path or "/", parts.query, "")), body, headers)
        answer = connection.getresponse()
        return answer.status, answer.reason
