"""Files in the directory of the records: each appears whole, in one step."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from caseexec.deadline import Deadline
from caseexec.record import place

__all__ = ["locked", "put"]

# Each is lost only to a process that tidies up just then.
_TRIES = 20


def put(where: str, name: str, text: str, into_place: Callable[[str, str], None]) -> None:
    """Put a file there; whoever reads meanwhile sees the former one or this one. The directory is made if need be.

    :param into_place: what gives the written file its name: :func:`os.replace`, or :func:`os.link`, which fails when
        there is a file of that name.
    :raises OSError: it cannot be written, or its directory cannot be trusted.
    """
    for tries_left in reversed(range(_TRIES)):
        with suppress(FileExistsError):
            os.mkdir(where, 0o700)
        try:
            _put(os.path.join(place.checked(where), name), text, into_place)
            return
        except FileNotFoundError:  # Somebody has just removed the directory, as it was empty, or the new file.
            if not tries_left:
                raise
        except place.Refused:
            raise
        except OSError:
            with suppress(OSError):  # It may have been made for nothing.
                os.rmdir(where)
            raise


def _put(path: str, text: str, into_place: Callable[[str, str], None]) -> None:
    new = f"{path}.{secrets.token_hex(4)}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        into_place(new, path)
    finally:
        with suppress(OSError):  # One that was moved is no longer there.
            os.unlink(new)


@contextmanager
def locked(descriptor: int, deadline: Deadline) -> Iterator[None]:
    """Have an open file, or directory, for oneself; the lock goes with this process at the latest.

    :raises TimeoutError: somebody else had it until the deadline.
    """
    import fcntl

    for _ in deadline.turns():
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
    else:
        raise TimeoutError(errno.ETIMEDOUT, "Somebody else has it locked")
    try:
        yield
    finally:
        # Not only by closing it: a child that was forked meanwhile has it, too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
