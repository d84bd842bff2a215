"""Free ports for those who lease none."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

HOST = "127.0.0.1"


def free_port() -> int:
    while True:
        port = random.randrange(10_000, 30_000)  # Below those that the kernel gives to connections.
        with socket.socket() as sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((HOST, port))
            return port
