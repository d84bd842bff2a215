"""Directories: removing one, whatever a service has done to it, and who can get to what is in one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from contextlib import suppress

__all__ = ["is_open", "remove_tree", "working_directory"]


def remove_tree(path: str) -> bool:
    """Remove a directory, or whatever is in its place; whether it is gone. What is behind a link is not touched."""
    if os.path.islink(path) or not os.path.isdir(path):
        with suppress(OSError):
            os.unlink(path)
        return not os.path.lexists(path)
    _remove(path)
    if os.path.exists(path):  # A service may have taken the permission away from itself.
        _open_directories(path)
        _remove(path)
    return not os.path.exists(path)


def _remove(path: str) -> None:
    try:
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:  # Before Python 3.13 a tree may be too deep for it.
        silent = subprocess.DEVNULL
        with suppress(OSError):
            subprocess.run(["/bin/rm", "-rf", path], stdin=silent, stdout=silent, stderr=silent, check=False)


def working_directory() -> str:
    """Where this process is; the topmost directory when that was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


def is_open(path: str, user: int) -> bool:
    """Whether a user can get to what is in a directory, as far as the permissions tell that are for all, or the owner.

    :param user: a user id.
    """
    path = os.path.realpath(path)
    while True:
        found = os.stat(path)
        if not found.st_mode & (stat.S_IXUSR if found.st_uid == user else stat.S_IXOTH):
            return False
        if path == os.path.dirname(path):
            return True
        path = os.path.dirname(path)


def _open_directories(path: str) -> None:
    with suppress(OSError):
        os.chmod(path, 0o700)
    for directory, names, _ in os.walk(path):
        for inner in (os.path.join(directory, name) for name in names):
            if not os.path.islink(inner):  # Behind a link is somebody else's.
                with suppress(OSError):
                    os.chmod(inner, 0o700)
