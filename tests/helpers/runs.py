"""Runs of their own: a Python program or a test module in a process that can be interrupted and killed."""

import os
import signal
import subprocess
import sys
import textwrap

from tests.helpers.leaks import NothingRemains, soon

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# What changes how a runner prints: a CI server's names for itself, with which pytest cuts no message, and colours.
LOOKS = ("CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS")


def plain_environment() -> dict[str, str]:
    """Ours, without what is meant for us, and what makes each run compile the package anew."""
    theirs = ("PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "CASEEXEC_REQUIRE", *LOOKS)
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name not in theirs}


# Written to stderr when a start takes more than two seconds, as it may on a busy machine.
WAITS = "caseexec: waiting for "


def without_waits(output: str) -> str:
    """What a run wrote, without what it waited for."""
    return "".join(line for line in output.splitlines(keepends=True) if not line.startswith(WAITS))


class RunCase(NothingRemains):
    """Runs programs in a directory and a temporary directory of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.run_tmp = self.make_dir("run")
        self.environment = {**plain_environment(), "TMPDIR": self.run_tmp, "PYTHONPATH": ROOT, "PYTHONDEVMODE": "1"}

    def write(self, name: str, source: str) -> str:
        path = self.path(name)
        with open(path, "w") as file:
            file.write(textwrap.dedent(source))
        return path

    def begin(self, *arguments: str, **popen) -> subprocess.Popen:
        popen = {"stdin": subprocess.DEVNULL, **popen}
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=self.tmp, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # A job in a shell's background has SIGINT ignored, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **popen,
        )  # fmt: skip
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_python(self, *arguments: str, timeout: float = 60) -> tuple[int, str]:
        process = self.begin(*arguments)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, without_waits(output)

    def line(self, process: subprocess.Popen) -> str:
        """The next line that it writes."""
        while (line := process.stdout.readline()).startswith(WAITS):
            pass
        return line

    def interrupt_when(self, process: subprocess.Popen, file: str, number: int = signal.SIGINT) -> str:
        """Send a signal when a file appears; the rest of the output."""
        self.assertTrue(soon(lambda: os.path.exists(self.path(file)) or process.poll() is not None, 30))
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        return without_waits(output)
