"""Logs with a hole: the head of one that has become too large is freed, and every offset into it stays valid.

The reaper loads this when it needs it, and must stay small: it imports nothing of the package.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

__all__ = ["read", "trim"]

# fallocate(2); fcntl(2) of macOS.
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_F_PUNCHHOLE = 99
_IMPOSSIBLE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
# A hole ends at a multiple of it: NUL bytes up to there are a hole also where the system does not tell (bytes).
_BLOCK = 4096
# What stays where no hole can be made: as much as an error looks at, and as the reaper has memory for (bytes).
_PUT_BACK = 64 * 1024


def trim(path: str | bytes, limit: int) -> bool:
    """Free the head of a log that takes more than *limit* bytes on disk; at least its last *limit* / 2 bytes stay.

    Its size stays too; what is freed is a hole, which reads as NUL bytes.

    Where the file system can't make one (NFS before 4.2), the file is emptied, and its last 64 KiB are put back where
    they were. What is written in that moment is lost, or stands at the beginning of the file. Where there are no holes
    at all (FAT), the file is just emptied, and offsets from before mean nothing.

    :returns: whether it took more.
    :raises OSError: it could not be opened (it is a link, for one), or not be trimmed.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        # By a hard link, too, something else may have been put in its place.
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
        if not is_ours or not _is_above(fd, limit):
            return False
        _free(fd, (found.st_size - limit // 2) // _BLOCK * _BLOCK, limit)
        return True
    finally:
        os.close(fd)


def _is_above(fd: int, limit: int) -> bool:
    found = os.fstat(fd)
    # Not the blocks alone: behind the end there may be some for what is yet to come (XFS), which are not to be freed.
    return min(found.st_blocks * 512, found.st_size - _skip(fd, 0)) > limit


def _free(fd: int, length: int, limit: int) -> None:
    """Free the first *length* bytes, or more where that is not possible; none when they are not positive."""
    try:
        if length > 0:
            _punch(fd, length)
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        _empty(fd, limit)


def _punch(fd: int, length: int) -> None:
    """Make the first bytes of a file a hole.

    :raises OSError: with one of ``_IMPOSSIBLE`` where that can't be done at all.
    """
    if sys.platform == "darwin":
        import fcntl
        import struct

        fcntl.fcntl(fd, _F_PUNCHHOLE, struct.pack("IIqq", 0, 0, 0, length))
        return
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        # The one of musl takes 64 bits anyhow.
        fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
    except (ImportError, AttributeError, MemoryError) as error:  # Neither Linux nor like it; or ctypes does not work.
        raise OSError(errno.ENOTSUP, str(error)) from error
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, 0, length) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _empty(fd: int, limit: int) -> None:
    """Free all of a file, and put its end back where it was."""
    size = os.fstat(fd).st_size
    start = max(0, size - min(_PUT_BACK, limit // 2)) // _BLOCK * _BLOCK
    end = os.pread(fd, size - start, start)
    # In one breath: what is written in between is at the beginning.
    os.ftruncate(fd, 0)
    os.pwrite(fd, end, start)
    if _is_above(fd, limit):
        os.ftruncate(fd, 0)


def read(fd: int, start: int, end: int) -> tuple[int, bytes]:
    """What a file has between two offsets, and where that begins: behind a hole that *start* is in.

    Nothing, when the hole goes as far as *end*; there is more only behind what is told then.
    """
    begin = _skip(fd, start)
    data = os.pread(fd, max(0, end - begin), begin)
    rest = data.lstrip(b"\0")
    # Asked again, as it may have been freed while it was read.
    behind = max(_skip(fd, begin), (begin + len(data) - len(rest)) // _BLOCK * _BLOCK)
    if behind <= begin:
        return begin, data
    return behind, data[behind - begin :] if rest else b""


def _skip(fd: int, position: int) -> int:
    """The end of a hole that an offset is in, as far as the system tells; otherwise the offset."""
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except (AttributeError, OSError):  # It does not know how; or that is the end of the file.
        return position
