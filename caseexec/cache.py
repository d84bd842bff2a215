"""What takes long to make, and is the same each time: made once, and kept for the next runs."""

from __future__ import annotations

import glob
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from caseexec import record
from caseexec.deadline import Deadline
from caseexec.directories import remove_tree

__all__ = ["directory", "entry"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# Where it is not in the user's home: it outlives the next start of the machine.
_ELSEWHERE = "/var/tmp"  # noqa: S108
# One that nobody has used for so long is removed when a new one is made (seconds).
_UNUSED = 30 * 24 * 3600


def directory(uid: int | None = None) -> str:
    """Where these things are (mode 0700), made if need be.

    In ``$XDG_CACHE_HOME``, ``~/.cache`` or, on macOS, ``~/Library/Caches``. Where these are not this user's (after
    "sudo"), or can't be written to, and when root makes them for somebody else: ``/var/tmp/caseexec-cache-<uid>``.

    :param uid: whose they are; by default this user's. Only root can have them for somebody else.
    :raises OSError: it cannot be made, or not be trusted.
    """
    if uid is None or uid == os.getuid():
        for place in _places():
            with suppress(OSError):  # No space is left, or it is for reading only.
                os.makedirs(os.path.join(place, "caseexec"), 0o700, exist_ok=True)
                return record.checked(os.path.join(place, "caseexec"), "XDG_CACHE_HOME")
    return _elsewhere(os.getuid() if uid is None else uid)


def _elsewhere(uid: int) -> str:
    where = _ELSEWHERE if os.access(_ELSEWHERE, os.W_OK | os.X_OK) else tempfile.gettempdir()
    path = os.path.join(where, f"caseexec-cache-{uid}")
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    if uid != os.getuid() and os.lstat(path).st_uid == os.getuid():  # Also when who has made it was killed here.
        _give_away(path, uid)
    return record.checked(path, "XDG_CACHE_HOME" if uid == os.getuid() else "", uid)


def _give_away(path: str, uid: int | None) -> None:
    """Let it be that user's. It is in a place of theirs: what they may have put there instead is not followed."""
    if uid is not None:
        os.chown(path, uid, -1, follow_symlinks=False)


def _places() -> Iterator[str]:
    given, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    if os.path.isabs(given) and (_is_ours(given) or not os.path.exists(given)):
        yield given
    if _is_ours(home):
        yield os.path.join(home, *(("Library", "Caches") if sys.platform == "darwin" else (".cache",)))


def _is_ours(path: str) -> bool:
    return os.path.isdir(path) and os.stat(path).st_uid == os.getuid()


def entry(
    name: str, make: Callable[[str], object], deadline: Deadline, *, uid: int | None = None, lasts: bool = False
) -> str:
    """The directory of that name, which is made if there is none.

    It is whole or not there: of several processes that need it at once one makes it, and the others wait; what one has
    left that was killed meanwhile is removed. One that has lost something since (systemd cleans /var/tmp) is made anew.

    :param name: its first part, up to a hyphen, tells of what kind it is.
    :param make: makes what is in it; it is called with the path that it has until it is done.
    :param uid: as for :func:`directory`.
    :param lasts: it changes, and is not removed when it was not used for a month.
    :raises TimeoutError: another process was still making it when the time was over.
    :raises OSError: it could not be made.
    """
    path = os.path.join(directory(uid), name)
    is_there = os.path.isdir if lasts else _is_whole
    if not is_there(path):
        _make(path, make, deadline, uid, is_there)
        if not lasts:
            _prune(os.path.dirname(path), name.partition("-")[0])
    if not lasts:
        os.utime(path)
    return path


def _make(
    path: str, make: Callable[[str], object], deadline: Deadline, uid: int | None, is_there: Callable[[str], bool]
) -> None:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if uid is not None:
            os.chown(lock, uid, -1)
        with record.locked(lock, deadline):
            if is_there(path):
                return
            for left in (path, *glob.glob(f"{glob.escape(path)}.new-*")):
                remove_tree(left)
            new = f"{path}.new-{secrets.token_hex(4)}"
            try:
                os.mkdir(new, 0o700)
                _give_away(new, uid)
                make(new)
                os.truncate(lock, 0)
                os.pwrite(lock, b"%d" % _size(new), 0)
                os.rename(new, path)
            finally:
                remove_tree(new)
    finally:
        os.close(lock)


def _is_whole(path: str) -> bool:
    try:
        with open(f"{path}.lock", "rb") as file:
            return os.path.isdir(path) and file.read() == b"%d" % _size(path)
    except FileNotFoundError:
        return False


def _size(path: str) -> int:
    """The number of files and directories in it."""
    return sum(len(directories) + len(files) for _, directories, files in os.walk(path))


def _prune(where: str, kind: str) -> None:
    for path in glob.glob(f"{glob.escape(where)}/{kind}-*/"):
        with suppress(OSError):
            if time.time() - os.stat(path).st_mtime > _UNUSED:
                remove_tree(path.rstrip(os.sep))
