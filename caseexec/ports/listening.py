"""Who listens on a port."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Listener", "listeners"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Listener(NamedTuple):
    """A socket that accepts TCP connections; what the system does not tell is ``None``."""

    host: str
    port: int
    inode: int | None = None
    uid: int | None = None
    pid: int | None = None


def listeners(host: str, port: int) -> list[Listener]:
    """The sockets that answer a connection to *host* and *port*: those bound to it, else those bound to every address.

    Empty when there are none, or when the system does not tell.
    """
    try:
        every = list(_netlink(port) if sys.platform == "linux" else _psutil(port))
    except OSError:
        every = []
    addresses = {_plain(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    exact = [found for found in every if _plain(found.host) in addresses]
    # A socket on every IPv6 address takes IPv4 connections too, unless somebody is nearer.
    return exact or [found for found in every if ipaddress.ip_address(found.host).is_unspecified]


def _plain(address: str | int) -> str:
    ip = ipaddress.ip_address(str(address).partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip)


def _psutil(port: int) -> Iterator[Listener]:
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:  # macOS tells only root.
        return
    for found in connections:
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port:
            yield Listener(found.laddr.ip, port, pid=found.pid)


# The kernel's sock_diag interface, sock_diag(7): a dump of the listening TCP sockets on one port.
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NETLINK_SOCK_DIAG = 4
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2, up to its sockid
_SOCKID = struct.Struct("!HH16s16sIQ")  # struct inet_diag_sockid
_ANSWER_HEAD = struct.Struct("=BBBB")  # struct inet_diag_msg, up to its sockid
_ANSWER_TAIL = struct.Struct("=IIIII")  # and behind it: expires, rqueue, wqueue, uid, inode


def _netlink(port: int) -> Iterator[Listener]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN)
            body += _SOCKID.pack(port, 0, b"", b"", 0, 2**64 - 1)
            length = _HEADER.size + len(body)
            sock.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body)
            for message in _messages(sock):
                found = _listener(message)
                if found.port == port:
                    yield found


def _messages(sock: socket.socket) -> Iterator[bytes]:
    while True:
        data = sock.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return
            yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _listener(message: bytes) -> Listener:
    family = _ANSWER_HEAD.unpack_from(message)[0]
    port, _, source, *_ = _SOCKID.unpack_from(message, _ANSWER_HEAD.size)
    *_, uid, inode = _ANSWER_TAIL.unpack_from(message, _ANSWER_HEAD.size + _SOCKID.size)
    host = socket.inet_ntop(family, source[: 4 if family == socket.AF_INET else 16])
    return Listener(host, port, inode=inode, uid=uid)
