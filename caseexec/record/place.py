"""Where the records of this user are, and whom that can be trusted to."""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress

from caseexec import processes
from caseexec.errors import RecordWarning

__all__ = [
    "Refused",
    "checked",
    "directory",
    "elsewhere",
    "has_ended",
    "is_over",
    "lease_directory",
    "system",
    "tell_unusable",
]

_told: set[str] = set()


class Refused(OSError):
    """The directory of the records cannot be trusted, or cannot be made."""


def directory() -> str:
    """Where the records are: ``$XDG_RUNTIME_DIR/caseexec``, or ``caseexec-<uid>`` in the temporary directory."""
    return _directory(os.environ, tempfile.gettempdir())


def lease_directory() -> str:
    """Where the leases of ports are: where the records are, but whatever TMPDIR is; the ports are the same."""
    tmp = "/tmp"  # noqa: S108
    return _directory(os.environ, tmp if os.access(tmp, os.W_OK | os.X_OK) else tempfile.gettempdir())


def _directory(environment: Mapping[str, str], tmp: str) -> str:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_ours(runtime):
        return os.path.join(runtime, "caseexec")
    return os.path.join(tmp, f"caseexec-{os.getuid()}")


def elsewhere(pids: Iterable[int] | None = None) -> list[str]:
    """Where else this user's records are, as live services tell.

    A run that was started with another TMPDIR or XDG_RUNTIME_DIR (by tox, an IDE, a CI step) has its record there.

    :param pids: look at these processes only.
    """
    table = processes.table()
    told = {_told_by(pid) for pid in (table.everybody() if pids is None else pids) if processes.mark_of(table, pid)}
    return sorted(path for path in told - {directory()} if os.path.isabs(path))


def _told_by(pid: int) -> str:
    """Where a service's descriptor says that its run has its record, or else its environment; empty: neither does."""
    note = processes.table().inherited_note(pid)
    environment = {} if note else processes.environment(pid)
    if not environment:
        return note
    # As tempfile, which looks further only where there is no such directory.
    tmp = next(filter(None, map(environment.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")  # noqa: S108
    return _directory(environment, tmp)


def _is_ours(path: str) -> bool:
    # After "su" or "sudo" it may still name the other user's, and in a container one that is not there.
    try:
        return os.stat(path).st_uid == os.getuid() and os.access(path, os.W_OK | os.X_OK)
    except OSError:
        return False


def checked(path: str, variable: str = "XDG_RUNTIME_DIR", uid: int | None = None) -> str:
    """*path*, when nobody else can have put anything there.

    :param variable: the environment variable that can name another place; empty: there is none.
    :param uid: whose it is to be; by default, this user's.
    :raises Refused: it is a link, or somebody else's, or open to others.
    :raises FileNotFoundError: it is not there.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{path} is no directory{' but a link' if stat.S_ISLNK(found.st_mode) else ''}; remove it")
    if found.st_uid != (os.getuid() if uid is None else uid):
        owner = processes.user_name(found.st_uid)
        way_out = f"remove it, or set {variable} to one of yours" if variable else "remove it"
        raise Refused(f"{path} belongs to user {owner}; {way_out}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Refused(f"{path} can be entered by other users; remove it, or: chmod 700 {path}")
    return path


def tell_unusable(where: str, error: OSError) -> None:
    """Warn, once, that a directory can't be used, whoever wanted to put something there."""
    if where in _told:
        return
    _told.add(where)
    problem = (
        "no record of this run can be kept there, for 'python -m caseexec ps' and 'reap', nor its leases of ports, so "
        f"that a run beside it may get the same ports: {error}"
    )
    # A refusal names its own way out, and no directory helps who has no descriptor left.
    helpless = isinstance(error, Refused) or error.errno in (errno.EMFILE, errno.ENFILE)
    remedy = "" if helpless else "; set XDG_RUNTIME_DIR to a directory that you can write to"
    warnings.warn(RecordWarning(where, f"{problem}{remedy}"), stacklevel=4)


@functools.cache
def system() -> str:
    """The machine, its present life, and the process-id namespace: where a pid means something."""
    machine = os.uname().nodename
    if sys.platform != "linux":
        return machine
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError), open(path) as file:
            machine += f" {file.read().strip()}"
    with suppress(OSError):
        machine += f" {os.readlink('/proc/self/ns/pid')}"
    return machine


def is_over(other: str) -> bool:
    """Whether this machine was started again since; in another namespace, or on another machine, a run may live."""
    ours, theirs = system().split(), other.split()
    return len(ours) == len(theirs) == 4 and ours[:2] == theirs[:2] and ours[2] != theirs[2]


def has_ended(identity: processes.Identity, other: str) -> bool:
    """Whether a process has certainly ended; of one in another namespace, or on another machine, nobody here can say.

    :param other: the :func:`system` that it is of.
    :raises OSError: no file descriptor is left to look with.
    """
    if other != system():
        return is_over(other)
    status = processes.table().status(identity.pid)
    return status is None or status.zombie or status.identity != identity
