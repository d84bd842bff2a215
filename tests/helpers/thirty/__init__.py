"""Thirty test classes of every sort, for every test runner.

A run of :mod:`tests.helpers.faults` has a copy of each module, called ``test_<module>.py``.
"""

import os
import pathlib
import socket
import unittest

from caseexec import OutputService, OutputServiceMixin, processes
from caseexec.registry import current_run
from tests.helpers import faulty
from tests.helpers.faulty import _COMMON, NOTES, note

# Writes what it was told.
TOLD = _COMMON + """
    serve(lambda connection: print('was told', connection.recv(100).decode(), flush=True))
"""  # fmt: skip

SLEEPS = OutputService("echo up; exec sleep 300", shell=True, banner="up")


def modules() -> dict[str, str]:
    """The source of each module, by the name that it has in a run."""
    paths = pathlib.Path(__file__).parent.glob("[a-z]*.py")
    return {f"test_{path.stem}": path.read_text() for path in sorted(paths)}


def tell(port: int, words: str) -> None:
    """Tell a service something, of which it then writes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        if connection.recv(4096).decode() != NOTES:
            raise AssertionError("that is somebody else")
        connection.sendall(words.encode())
        while connection.recv(4096):  # It has written when it closes.
            pass


class Noted(unittest.TestCase):
    """Notes in which processes it is run, and that a test has passed."""

    @classmethod
    def setUpClass(cls) -> None:
        note("runs", current_run().id)
        identity = processes.table().status(os.getpid()).identity
        note("holders", f"{identity.pid} {identity.born}")
        super().setUpClass()

    def passes(self, *ports: int) -> None:
        """End a test well, when its services answer."""
        for port in ports:
            self.assertTrue(faulty.answers(port), port)
        note("passed", self.id())


class Sleeps(OutputServiceMixin, Noted):
    """Has a service of its own that sleeps."""

    service_command = SLEEPS.command
    service_shell = SLEEPS.shell
    service_banner = SLEEPS.banner


class MustNotRun:
    """Two tests that are not to be run."""

    def test_one(self) -> None:
        raise AssertionError("must not run")

    def test_two(self) -> None:
        raise AssertionError("must not run")
