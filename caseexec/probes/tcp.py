"""Ready when a TCP connection is accepted, by our service and by nobody else."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass

from caseexec import processes, record
from caseexec.errors import AlreadyRunning, Owner
from caseexec.ports import is_free, listeners
from caseexec.probes.base import CONNECT_TIMEOUT, NotReady, Target, refusal

__all__ = ["TCPProbe", "refuse_self", "require_ours"]

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
            _connect(self.host, self.port, target.deadline.at_most(CONNECT_TIMEOUT))
        except OSError as error:
            raise NotReady(refusal(error)) from error
        require_ours(target, self.host, self.port)

    def occupant(self) -> Owner | None:
        try:
            _connect(self.host, self.port, CONNECT_TIMEOUT)
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


def _connect(host: str, port: int, timeout: float) -> None:
    with socket.create_connection((host, port), timeout) as sock:
        refuse_self(sock)


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
