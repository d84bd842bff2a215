"""A tiny service with any kind of readiness, which tells when it was ready. Run with ``python -I -S``.

``service.py KIND HOME PORT DELAY``: after DELAY seconds it becomes ready as KIND says (``tcp``, ``http``, ``output``,
``pid``, ``unix``), or ends with status 3 (``exit``). In that very moment it takes the time of the monotonic clock,
which is the same for all processes, and writes it into HOME/stamp. SIGTERM ends it at once.

``service.py idle COUNT``: starts COUNT processes that sleep, says ``ready``, and ends them when its stdin ends, which
it also does when the process at the other end was killed.
"""

import os
import signal
import socket
import sys
import time

ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"
LONGEST_LIFE = 120  # seconds; should the benchmark be killed


def serve(kind: str, home: str, port: int, delay: float) -> None:
    """Become ready, take the time, and do what the kind has to do from then on."""
    stamp = os.open(f"{home}/stamp", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    time.sleep(delay)
    server = make_ready(kind, home, port)
    os.write(stamp, b"%d\n" % time.monotonic_ns())
    if kind == "exit":
        os._exit(3)
    while server is not None:
        connection = server.accept()[0]
        if kind == "http" and connection.recv(4096):
            connection.sendall(ANSWER)
        connection.close()
    time.sleep(LONGEST_LIFE)


def make_ready(kind: str, home: str, port: int) -> socket.socket | None:
    """Do what makes it ready; with the last system call in here it is."""
    if kind in ("tcp", "http"):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        return server
    if kind == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{home}/socket.new")
        server.listen()
        os.rename(f"{home}/socket.new", f"{home}/socket")
        return server
    if kind == "pid":
        with open(f"{home}/pid.new", "w") as file:
            file.write(f"{os.getpid()}\n")
        os.rename(f"{home}/pid.new", f"{home}/pid")
    if kind == "output":
        os.write(1, b"ready\n")
    return None


def keep_idle(count: int) -> None:
    """Keep idle processes until stdin ends, then end and reap them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # It ends its group, and then itself.
    try:
        for _ in range(count):
            os.posix_spawnp("sleep", ["sleep", "3600"], os.environ, setsigdef=[signal.SIGTERM])
        os.write(1, b"ready\n")
        os.read(0, 1)
    finally:
        os.killpg(0, signal.SIGTERM)
        try:
            while True:
                os.wait()
        except ChildProcessError:
            pass


if __name__ == "__main__":
    if sys.argv[1] == "idle":
        keep_idle(int(sys.argv[2]))
    else:
        signal.alarm(LONGEST_LIFE)
        serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
