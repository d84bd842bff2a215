"""Ready when a connection to a Unix socket is accepted, by our service."""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import cast

from caseexec import record
from caseexec.errors import AlreadyRunning, DeclarationError, Owner
from caseexec.probes.base import CONNECT_TIMEOUT, NotReady, Target, refusal

__all__ = ["UnixSocketProbe"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# unix(7); BSD and macOS allow four bytes less.
_LONGEST_PATH = 107 if sys.platform == "linux" else 103


@dataclass(frozen=True)
class UnixSocketProbe:
    """Ready when the service accepts a connection on a Unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"a connection to the Unix socket {self.path}"

    @property
    def place(self) -> str:
        return f"Unix socket {self.path}"

    def check(self, target: Target, /) -> None:
        try:
            pid = self._peer(target.deadline.at_most(CONNECT_TIMEOUT))
        except OSError as error:
            raise NotReady(refusal(error)) from error
        if pid and target.listener != "any" and target.is_stranger(pid):
            raise AlreadyRunning(target.executor, record.owner(pid), self.place)

    def occupant(self) -> Owner | None:
        try:
            pid = self._peer(CONNECT_TIMEOUT)
        except OSError:
            return None
        return record.owner(pid) if pid else Owner()

    def thief(self) -> Owner | None:
        return self.occupant()

    def _peer(self, timeout: float) -> int:
        length = len(os.fsencode(self.path))
        if length > _LONGEST_PATH:
            problem = f"{self.path!r} has {length} bytes, and the path of a Unix socket at most {_LONGEST_PATH}"
            raise DeclarationError("socket", f"{problem}; is TMPDIR very long?")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(self.path)
            if sys.platform != "linux":
                return 0
            # unix(7): who called listen(2).
            return cast(int, struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
