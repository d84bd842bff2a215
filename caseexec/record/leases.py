"""Leases of ports as files: one a port, that names the process which has it.

A lease that cannot be read, or that is of another process-id namespace, counts as taken. Only one whose process has
certainly ended is removed by others, and only under a lock: of two who have seen it, the slower one would otherwise
remove the lease that the faster one has put in its place.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from caseexec import processes
from caseexec.deadline import Deadline
from caseexec.record import files, place

__all__ = ["give_back_lease", "lease_holder", "lease_path", "prune_leases", "take_lease"]

_PREFIX = "port-"
# A holder is much shorter; what is longer is none.
_LONGEST = 4096


def lease_path(where: str, port: int) -> str:
    """Where the lease of a port is."""
    return os.path.join(where, f"{_PREFIX}{port}")


def lease_holder() -> str:
    """This process, as a lease names its holder.

    :raises OSError: it can't be seen by itself.
    """
    status = processes.table().status(os.getpid())
    if status is None:
        raise ProcessLookupError("this process can't be seen")
    return f"{status.identity.pid} {status.identity.born} {place.system()}\n"


def take_lease(path: str, holder: str) -> bool:
    """Put a lease there; ``False``: another process has it.

    :raises OSError: it cannot be written, or its directory cannot be trusted.
    """
    where, name = os.path.split(path)
    return _put(where, name, holder) or (_remove_ended(where, name) and _put(where, name, holder))


def _put(where: str, name: str, holder: str) -> bool:
    try:
        files.put(where, name, holder, os.link)
    except FileExistsError:
        return False
    return True


def give_back_lease(path: str, holder: str) -> None:
    """Remove a lease, if it is still this holder's, and the directory with the last one."""
    with suppress(OSError):
        if _read(path) == holder:
            os.unlink(path)
        os.rmdir(os.path.dirname(path))


def prune_leases(where: str, holder: str | None = None, patience: float = 0) -> None:
    """Remove the leases of processes that have ended, and the directory with the last one.

    :param holder: its leases are removed in any case.
    :param patience: for how many seconds to wait for somebody else who does that just now.
    """
    with suppress(OSError):
        with _locked(where, patience) as directory:
            has_ended = functools.cache(lambda found: found == holder or _has_ended(found))
            for name in os.listdir(directory):
                if name.startswith(_PREFIX):
                    with suppress(OSError):
                        # Of one that was not yet put into its place its writer makes another, if he lives.
                        if "." in name or has_ended(_read(name, directory)):
                            os.unlink(name, dir_fd=directory)
        os.rmdir(where)


def _remove_ended(where: str, name: str) -> bool:
    """Remove one lease; ``False``: somebody has it, or that can't be said."""
    with suppress(OSError), _locked(where) as directory:
        if _has_ended(_read(name, directory)):
            os.unlink(name, dir_fd=directory)
            return True
    return False


@contextmanager
def _locked(where: str, patience: float = 0) -> Iterator[int]:
    """Have the directory for oneself, as a descriptor; it may be another one than its path names a moment later.

    :raises OSError: somebody else has it, or it can't be trusted.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(place.checked(where), flags)
    try:
        with files.locked(directory, Deadline(patience)):
            yield directory
    finally:
        os.close(directory)


def _read(path: str, directory: int | None = None) -> str:
    """What is in a file, as far as a lease is long.

    :raises OSError: it can't be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        return os.read(descriptor, _LONGEST).decode(errors="surrogateescape")
    finally:
        os.close(descriptor)


def _has_ended(holder: str) -> bool:
    """Whether the process that a lease names has certainly ended.

    :raises OSError: that can't be seen now.
    """
    try:
        pid, born, system = holder.rstrip("\n").split(" ", 2)
        identity = processes.Identity(int(pid), float(born))
    except ValueError:
        return False
    return identity.pid > 0 and place.has_ended(identity, system)
