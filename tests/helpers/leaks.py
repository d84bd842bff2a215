"""Leaks as assertions: no process, no port, no file descriptor, no temporary directory remains."""

import gc
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from collections.abc import Iterator

from caseexec import ports, processes
from caseexec.deadline import Deadline
from caseexec.registry import current_run

# Without it all tests, and the runs that they make, share the leases of ports, whatever their TMPDIR is.
os.environ.pop("XDG_RUNTIME_DIR", None)

# For a run that a test makes: a reaper ends whoever carries the mark of its run, on the whole machine.
RUN_ID = f"cafe{os.getpid():08x}"


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    status = processes.table().status(pid)
    return status is not None and not status.zombie


def of_this_run() -> list[int]:
    """The processes that carry a mark of this run."""
    table = processes.table()
    marks = ((pid, table.mark(pid)) for pid in table.everybody())
    return [pid for pid, mark in marks if mark is not None and mark.rpartition(".")[0] == current_run().id]


def soon(condition, seconds: float = 10.0) -> bool:
    """Wait until a condition holds; whether it did in time."""
    return any(condition() for _ in Deadline(seconds).turns())


def clock_is_after(pid: int) -> bool:
    """Whether a process that is started now has a later start time than another."""
    born = processes.table().status(pid).identity.born
    process = subprocess.Popen(["sleep", "300"])
    try:
        return processes.table().status(process.pid).identity.born > born
    finally:
        process.kill()
        process.wait()


def on_disk(path: str) -> int:
    """What a log takes on disk, without what the file system has set aside behind its end (XFS)."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        return min(found.st_blocks * 512, found.st_size - os.lseek(file.fileno(), 0, os.SEEK_DATA))


def descriptors(directory: str = "/dev/fd") -> set[str]:
    """The open file descriptors, ours or those of ``/proc/<pid>/fd``, with what they are."""
    return set(_descriptors(directory))


def _descriptors(directory: str) -> Iterator[str]:
    for name in os.listdir(directory):
        try:
            yield f"{name} -> {os.readlink(f'{directory}/{name}') if os.path.isdir('/proc/self/fd') else ''}"
        except OSError:
            pass  # The one that listed them, or one that was just closed.


class NothingRemains(unittest.TestCase):
    """Gives each test a temporary directory of its own and checks after it that nothing remains.

    Logs of what failed may stay, as their paths were told; :attr:`kept_logs` says how many are expected.
    """

    kept_logs: int | None = None

    def setUp(self) -> None:
        super().setUp()
        self.tmp = tempfile.mkdtemp(prefix="t-")
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)
        # It is started with the first service, and stays.
        current_run().reaper.tell("tests", {})
        current_run().reaper.forget("tests")
        self.addCleanup(self._check_nothing_remains, descriptors())
        self.addCleanup(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = self.make_dir("tmp")
        gc.freeze()  # What was there before needs no look after each test: that took two thirds of their time.

    def make_dir(self, name: str) -> str:
        path = os.path.join(self.tmp, name)
        os.mkdir(path)
        return path

    def path(self, name: str) -> str:
        return os.path.join(self.tmp, name)

    def lease(self) -> int:
        """A free port, until the end of the test."""
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        return port

    def _check_nothing_remains(self, before: set[str]) -> None:
        gc.collect()
        self.assertEqual(of_this_run(), [], "processes remain")
        self.assertEqual(descriptors() - before, set(), "file descriptors remain")
        left = os.listdir(self.path("tmp"))
        self.assertEqual([name for name in left if not name.endswith(".log")], [], "temporary files remain")
        if self.kept_logs is not None:
            self.assertEqual(len(left), self.kept_logs, left)
        self.assertEqual(current_run().groups, set(), "the run still has groups in its books")


def quickly(test: unittest.TestCase, seconds: float) -> "_Quickly":
    """A block that must end in time; a generous bound, no measurement."""
    return _Quickly(test, seconds)


class _Quickly:
    def __init__(self, test: unittest.TestCase, seconds: float) -> None:
        self.test, self.seconds = test, seconds

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.test.assertLess(time.monotonic() - self.started, self.seconds)
