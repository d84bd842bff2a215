"""A conversation with a server, with one deadline for all of it."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from caseexec.deadline import Deadline
from caseexec.probes.tcp import await_socket

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Wire"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_Answer = TypeVar("_Answer")


class Wire:
    """What also :mod:`http.client` takes for a socket.

    Each wait ends with the deadline, soon after it was expired, too.

    :param sock: connected; it does not block.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        # What TLS raises when it has to wait, and what for.
        self._tls_waits: dict[type[OSError], int] = {}
        # What has arrived, and was not asked for yet.
        self._received = b""

    def encrypt(self, context: SSLContext, host: str) -> None:
        """Speak TLS from here on."""
        import ssl

        self._tls_waits = {ssl.SSLWantReadError: select.POLLIN, ssl.SSLWantWriteError: select.POLLOUT}
        self._sock = secure = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._patiently(secure.do_handshake, select.POLLIN)

    def sendall(self, data: bytes) -> None:
        """Send all of it.

        :raises TimeoutError: the deadline came first.
        """
        left = memoryview(data)
        while left:
            left = left[self._patiently(partial(self._sock.send, left), select.POLLOUT) :]

    def recv(self, size: int) -> bytes:
        """What there is, up to so many bytes; nothing: the connection was closed.

        :raises TimeoutError: the deadline came first.
        """
        return self._patiently(partial(self._sock.recv, size), select.POLLIN)

    def read(self, size: int) -> bytes:
        """So many bytes.

        :raises ConnectionError: it was closed before.
        :raises TimeoutError: the deadline came first.
        """
        while len(self._received) < size:
            self._receive()
        found, self._received = self._received[:size], self._received[size:]
        return found

    def read_line(self) -> bytes:
        """A line, without its end (CR LF); raises as :meth:`read`."""
        while b"\r\n" not in self._received:
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _receive(self) -> None:
        received = self.recv(4096)
        if not received:
            raise ConnectionResetError(errno.ECONNRESET, "Connection closed without an answer")
        self._received += received

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _patiently(self, call: Callable[[], _Answer], event: int) -> _Answer:
        """What a call answers, when it does not have to wait any more."""
        waits: dict[type[OSError], int] = {BlockingIOError: event, **self._tls_waits}
        while True:
            try:
                return call()
            except OSError as error:
                if type(error) not in waits:
                    raise
                await_socket(self._sock, waits[type(error)], self._deadline)
