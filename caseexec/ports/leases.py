"""Leases of free ports: this process knows its own, and all processes of this user see them as files.

They are files (:mod:`caseexec.record.leases`). Where their directory can't be used, a lease is known to this process
only.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from caseexec import record

__all__ = ["free_port", "is_free", "release", "release_all", "watch"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# The kernel gives ports of its own range to outgoing connections, at any moment; a lease is taken from below it.
_LOWEST = 10_000
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"

# The file of each lease, by port; empty: it is known to this process only.
_leased: dict[int, str] = {}
# The directories that the watchers know of.
_told: set[str] = set()
_watchers: list[Callable[[list[str], str], None]] = []
_lock = threading.RLock()
# Not the shared generator: a suite that seeds it in each worker would draw the same ports in each.
_random = random.SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """Lease a TCP port on which nothing listens.

    It is not given out again, by this process or another one of this user, until :func:`release` or the end of this
    process. Processes know of each other's leases when they have the same ``XDG_RUNTIME_DIR``, or none.

    :raises OSError: no port is free, or *host* is no address of this machine.
    """
    for port in _candidates(host):
        with _lock:
            if port in _leased:
                continue
            _leased[port] = ""
        free = False
        try:
            # Strictly: not every server takes a port that still remembers connections (TIME_WAIT).
            free = _enter(port) and is_free(host, port, remembering=False)
        finally:
            if not free:
                release(port)
        if free:
            return port
    raise OSError(errno.EADDRINUSE, f"no free port on {host}")


def release(port: int) -> None:
    """Give a lease back; does nothing when this process has none."""
    with _lock:
        if path := _leased.get(port):
            record.give_back_lease(path, _holder())
        _leased.pop(port, None)  # Only now: interrupted before, it is given back at exit.


def release_all() -> None:
    """Give all leases of this process back."""
    for port in list(_leased):
        release(port)


def watch(tell: Callable[[list[str], str], None]) -> None:
    """Have *tell* called with the directories in which this process has leases, and with their holder.

    It is called now, if there are any, and whenever another one is about to be used.
    """
    with _lock:
        _notice_forks()
        _watchers.append(tell)
        if _told:
            tell(sorted(_told), _holder())


def _enter(port: int) -> bool:
    """Let all processes of this user know; ``False``: another one has the port."""
    if not hasattr(os, "getuid"):  # On Windows, where the directory would be nobody's.
        return True
    where = f"caseexec-{os.getuid()}"
    try:
        where = os.path.abspath(record.lease_directory())
        _begin(where)
        # Before it is there, so that it is given back whatever happens.
        _leased[port] = record.lease_path(where, port)
        return record.take_lease(_leased[port], _holder())
    except OSError as error:
        _leased[port] = ""
        record.tell_unusable(where, error)
        return True


def _begin(where: str) -> None:
    """Before the first lease in a directory: remove what dead processes have left there, and tell of it."""
    with _lock:
        _notice_forks()
        _notice_exit()
        if where in _told:
            return
        used = {where, *(os.path.dirname(path) for path in _leased.values() if path)}
        _told.clear()
        _told.update(used)
        record.prune_leases(where)
        for tell in _watchers:
            tell(sorted(used), _holder())


@functools.cache
def _holder() -> str:
    return record.lease_holder()


@functools.cache
def _notice_exit() -> None:
    atexit.register(release_all)


@functools.cache
def _notice_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_forked_child)


def _in_forked_child() -> None:
    global _lock
    _lock = threading.RLock()  # Another thread of the parent may have had it.
    # The leases are the parent's. Those without a file stay, as nothing else keeps them from being given out here.
    for port in [port for port, path in _leased.items() if path]:
        del _leased[port]
    _told.clear()
    _watchers.clear()
    _holder.cache_clear()
    _notice_exit.cache_clear()  # multiprocessing drops the parent's exit handlers.


def is_free(host: str, port: int, *, remembering: bool = True) -> bool:
    """Whether a server could listen on this port now.

    :param remembering: a port counts as free that only remembers connections which have ended (TIME_WAIT), as most
        servers take it (SO_REUSEADDR).
    :raises OSError: *host* is no address of this machine.
    """
    with socket.socket(_family(host), socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, remembering)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        # A child that another thread forks just now has a copy until its exec; that must not answer or be in the way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        with suppress(OSError):  # Not everywhere can one that listens be shut down.
            sock.shutdown(socket.SHUT_RDWR)
    return True


def _candidates(host: str) -> Iterator[int]:
    highest = _lowest_ephemeral()
    if highest - _LOWEST > 1000:
        for _ in range(200):
            yield _random.randrange(_LOWEST, highest)
    for _ in range(200):
        with socket.socket(_family(host), socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
            port: int = sock.getsockname()[1]
        yield port


def _lowest_ephemeral() -> int:
    try:
        with open(_EPHEMERAL) as file:
            return int(file.read().split()[0])
    except (OSError, ValueError):
        return 49_152  # RFC 6335, and macOS


def _family(host: str) -> socket.AddressFamily:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
