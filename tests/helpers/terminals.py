"""Terminals of our own."""

import fcntl
import os
import pty
import struct
import termios


class Terminal:
    """A terminal that notes what is written on it."""

    def __init__(self, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(slave, "w", encoding="utf-8")

    def written(self) -> str:
        """What was written since the last look."""
        self.end()
        return self.read()

    def end(self) -> None:
        """Have :meth:`read` read until here; also a pseudo-terminal takes a moment."""
        self.stream.write("\0")
        self.stream.flush()

    def read(self) -> str:
        """What is written until :meth:`end`."""
        data = b""
        while not data.endswith(b"\0"):
            data += os.read(self._master, 4096)
        return data[:-1].decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)
