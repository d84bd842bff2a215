"""Ready when a TCP connection is accepted, by our service and by nobody else."""

from __future__ import annotations

import errno
import os
import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from caseexec import processes, record
from caseexec.deadline import Deadline
from caseexec.errors import AlreadyRunning, Owner
from caseexec.ports import is_free, listeners
from caseexec.probes.base import CONNECT_TIMEOUT, NotReady, Target, refusal

__all__ = ["TCPProbe", "await_socket", "connected", "refuse_self", "require_ours"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


@dataclass(frozen=True)
class TCPProbe:
    """Ready when the service accepts a TCP connection."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"a TCP connection to {self.host}:{self.port}"

    @property
    def place(self) -> str:
        return f"port {self.host}:{self.port}"

    def check(self, target: Target, /) -> None:
        try:
            _connect(self.host, self.port, target.deadline)
        except OSError as error:
            raise NotReady(refusal(error)) from error
        require_ours(target, self.host, self.port)

    def occupant(self) -> Owner | None:
        try:
            _connect(self.host, self.port, Deadline(None))
        except OSError:
            return None
        found = listeners(self.host, self.port)
        for listener in found:
            for pid in processes.holders(processes.table(), listener.inode, listener.pid):
                return record.owner(pid)
        return Owner(user=processes.user_name(found[0].uid) if found else "")

    def thief(self) -> Owner | None:
        owner = self.occupant()
        if owner is None:
            with suppress(OSError):  # A host that is not this machine's tells nothing.
                return None if is_free(self.host, self.port) else Owner()
        return owner


def _connect(host: str, port: int, deadline: Deadline) -> None:
    with connected(host, port, CONNECT_TIMEOUT, deadline) as sock:
        refuse_self(sock)


def connected(host: str, port: int, timeout: float, deadline: Deadline) -> socket.socket:
    """A connection, as :func:`socket.create_connection` makes it, that does not block.

    :param timeout: seconds for each address of the host.
    :param deadline: until when; when another thread expires it, this soon ends too.
    :raises OSError: why there is none, at the last address.
    """
    failure = OSError(errno.EADDRNOTAVAIL, "The host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # As IPv6, where it is turned off.
            failure = error
            continue
        try:
            _connect_to(sock, address, deadline.within(timeout))
            return sock
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise failure


def _connect_to(sock: socket.socket, address: Any, deadline: Deadline) -> None:
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        await_socket(sock, select.POLLOUT, deadline)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def await_socket(sock: socket.socket, event: int, deadline: Deadline) -> None:
    """Wait until there is something to read (:data:`select.POLLIN`), or until one can write (:data:`select.POLLOUT`).

    :raises TimeoutError: the deadline came first, or another thread has expired it.
    """
    poller = select.poll()
    poller.register(sock, event)
    if not any(poller.poll(0) for _ in deadline.turns(lambda seconds: poller.poll(seconds * 1000))):
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def refuse_self(sock: socket.socket) -> None:
    """Make sure that a connection has somebody at its other end.

    Linux may give a connection the very port it connects to as its own, where nobody listens and the port is in the
    ephemeral range: it is then connected to itself.

    :raises ConnectionRefusedError: it is.
    """
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused (it was one to itself)")


def require_ours(target: Target, host: str, port: int) -> None:
    """Make sure that it is our service which answers.

    :raises AlreadyRunning: a stranger does.
    """
    if target.listener == "any":
        return
    stranger = target.stranger(listeners(host, port))
    if stranger is not None:
        raise AlreadyRunning(target.executor, stranger, f"port {host}:{port}")
