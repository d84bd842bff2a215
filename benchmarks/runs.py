"""Runs of their own: processes that are measured, and must not leave anything."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

MARK = "BENCHMARK_RUN"  # In the environment of all that a run starts.
LAST_MOMENTS = 5.0  # seconds in which the helpers of a run that is over must have ended, too


class Ended(NamedTuple):
    """How a run ended: its exit status, the seconds it took, and what it wrote."""

    code: int
    seconds: float
    output: str


def run(command: Sequence[str], work: str, environment: Mapping[str, str], cwd: str | None = None) -> Ended:
    """Run a command to its end, with a temporary directory of its own below *work*. What it leaves is ended.

    :raises SystemExit: it has left something, processes or files.
    """
    with tempfile.TemporaryDirectory(dir=work) as home, tempfile.TemporaryFile("w+") as output:
        os.chmod(home, 0o711)  # Servers that are not root go through it.
        mark = secrets.token_hex(8)
        try:
            marked = {**environment, MARK: mark, "TMPDIR": home}
            begun = time.monotonic()
            code = _wait(
                subprocess.Popen(
                    command, cwd=cwd, env=marked, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            )
            seconds = time.monotonic() - begun
        finally:
            left = _end_what_is_left(mark, home)
        output.seek(0)
        left += [os.path.join(home, name) for name in os.listdir(home)]
        if left:
            raise SystemExit("\n".join([f"{' '.join(command)} has left:", *left]))
        return Ended(code, seconds, output.read())


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def _end_what_is_left(mark: str, home: str) -> list[str]:
    deadline = time.monotonic() + LAST_MOMENTS
    while (left := list(_of_run(mark, home))) and time.monotonic() < deadline:
        time.sleep(0.02)
    told = [f"{process.pid} {_command(process)}" for process in left]
    for process in left:
        with suppress(psutil.Error):
            process.kill()  # It compares the start time, too.
    return told


def _of_run(mark: str, home: str) -> Iterator[psutil.Process]:
    """Those with its mark, and those that work in its directory, as PostgreSQL overwrites the former."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark or f"{process.cwd()}/".startswith(f"{home}/"):
                yield process


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return "?"
