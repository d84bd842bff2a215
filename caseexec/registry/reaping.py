"""The run's end of its reaper: a pipe that ends when the run does."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from caseexec.deadline import Deadline
from caseexec.errors import DeclarationError, ReaperWarning, exit_text
from caseexec.processes import table

__all__ = ["LIMIT", "SWITCH", "Reaper", "command_line", "keeper", "log_limit", "turned_off", "worker"]

SWITCH = "CASEEXEC_REAPER"
"""The environment variable that turns the reaper off when it is ``0``."""

LIMIT = "CASEEXEC_LOG_LIMIT"
"""The environment variable with the bytes that a log may take on disk; ``0``: any number."""

_DEFAULT_LIMIT = 64 * 1024 * 1024
# Half of it stays, and so much of the end is looked at for an error.
_LEAST_LIMIT = 128 * 1024
_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "reaper.py")
# It reads at once whatever it is told; one that does not is stopped, or about to die.
_PATIENCE = 2.0
_EXIT_PATIENCE = 0.1
_CONSEQUENCE = "a run that is killed (SIGTERM, SIGKILL, os._exit) leaves its services behind"


def turned_off() -> bool:
    """Whether the user wants no reaper."""
    return os.environ.get(SWITCH) == "0"


def log_limit() -> int:
    """The bytes that a log may take on disk; 0: any number.

    :raises DeclarationError: the user's value can't be right.
    """
    value = os.environ.get(LIMIT) or str(_DEFAULT_LIMIT)
    limit = int(value) if value.isdecimal() else -1
    if limit and limit < _LEAST_LIMIT:
        problem = f"{value!r} is not what a service's log may take on disk: write a number of bytes, at least"
        raise DeclarationError(LIMIT, f"{problem} {_LEAST_LIMIT} (default: {_DEFAULT_LIMIT}), or 0 for no limit")
    return limit


def keeper() -> int:
    """The process without which this one has no purpose: whose worker it is; 0: it is nobody's.

    A worker of :mod:`multiprocessing` that has lost its parent, and one of pytest-xdist, go on until their test ends.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = multiprocessing.parent_process() if multiprocessing else None
    if parent is not None:
        return int(parent.pid)
    return os.getppid() if "xdist" in sys.modules and "PYTEST_XDIST_WORKER" in os.environ else 0


def command_line(keeper: int) -> str:
    """The command line of this process, as a shell would take it; of a worker, its keeper's and its own name."""
    theirs = table().command(keeper) if keeper else ()
    if not theirs:
        return shlex.join([sys.executable or "python", *sys.orig_argv[1:]])
    return f"{shlex.join(theirs)} (worker {worker(keeper)})"


def worker(keeper: int) -> str:
    """What this process is called among the workers of its keeper (``gw0``); empty: it is nobody's."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    own = multiprocessing.current_process().name if multiprocessing else ""
    return os.environ.get("PYTEST_XDIST_WORKER") or own if keeper else ""


class Reaper:
    """The reaper of one run, as the run sees it. It is started with the first entry.

    :ivar pid: the reaper's process; ``None`` while there is none.
    """

    def __init__(
        self, run_id: str, keeper: int, cgroups: str, about: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._environment = environment
        self._keeper = keeper
        self._arguments = [run_id, str(os.getpid()), str(keeper), cgroups, json.dumps(about), *_libraries()]
        self._entries: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        self._lock = threading.RLock()

    @property
    def pid(self) -> int | None:
        """The reaper's process id; ``None`` while there is none."""
        return self._process.pid if self._process else None

    def tell(self, key: str, entry: Mapping[str, Any], limit: int = 0, logs: Sequence[str] = ()) -> None:
        """Have the reaper know of something that a killed run would leave behind, in place of what it knew by this key.

        :param limit: the bytes that each of the *logs* may take on disk while it is known; 0: any number.

        A :class:`ReaperWarning` tells when there is no reaper to know it.
        """
        with self._lock:
            self._entries[key] = json.dumps(entry) + _watched(limit, logs)
            if self._pipe is None or not self._send({key: self._entries[key]}):
                self._start()

    def forget(self, key: str) -> None:
        """Have the reaper forget what is no longer there."""
        with self._lock:
            if self._entries.pop(key, None) is None or self._pipe is None:
                return
            # One that lives and does not listen may have half a line, and what is gone is still in its books.
            if not self._send({key: ""}) and self._process and self._process.poll() is None:
                self._start()

    def close(self) -> None:
        """Let it go. If it was told of nothing that it has not forgotten, it is gone when this returns."""
        with self._lock:
            dead = self._process is not None and not self._listens(_PATIENCE)
            # Of a worker whose keeper has ended nobody reads.
            complaint = self._complaint(f"; from then on {_CONSEQUENCE}") if dead and not self._has_orphaned() else ""
            process = self._drop()
        if process is not None and not self._entries:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:  # It is stopped, and has nothing to do any more.
                process.kill()
                process.wait()
        _disown(process)
        _warn(complaint)

    def close_in_child(self) -> None:
        """Close a forked child's copy of the pipe."""
        self._lock = threading.RLock()  # Another thread of the parent may have had it.
        self._entries.clear()
        _disown(self._drop())

    def _start(self) -> None:
        complaint = self._complaint(". Another one is started now")
        if self._process is not None:
            # Before its pipe ends: one that was only stopped, or slow, would take that for the end of the run.
            self._process.kill()
            self._process.wait()
        self._drop()
        try:
            self._process = self._spawn()
            if not self._send(self._entries) and self._process.poll() is None:
                self._process.kill()  # It has half a line.
                raise TimeoutError(f"it did not listen within {_PATIENCE:g} seconds")
        except (OSError, ValueError) as error:
            complaint = f"could not be started: {error}. Without it {_CONSEQUENCE}. {SWITCH}=0 does without one"
        _warn(complaint)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command, silent = [*_program(), *self._arguments], subprocess.DEVNULL
        theirs, ours = os.pipe()
        # What ends a run is often sent to everybody, and until it has its handlers the reaper would heed it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            process = subprocess.Popen(
                command, stdin=theirs, stdout=silent, stderr=silent, env=self._environment, start_new_session=True
            )
            self._pipe = os.dup(ours)
            os.set_blocking(self._pipe, False)
            return process
        finally:
            os.close(theirs)
            os.close(ours)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _send(self, entries: Mapping[str, str]) -> bool:
        """Write to it; ``False``: it does not listen."""
        data = "".join(f"{key}\t{entry}\n" for key, entry in entries.items()).encode()
        deadline = Deadline(_PATIENCE)
        # Asked before: a write to nobody is a SIGPIPE, where the program has not ignored that.
        while data and self._listens(deadline.remaining()):
            try:
                data = data[os.write(self._pipe or -1, data) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return not data

    def _listens(self, seconds: float = 0) -> bool:
        """Whether it is there, and takes more within that time."""
        # A forked child of ours may have the end of the pipe that was the reaper's.
        if self._process is None or self._process.poll() is not None:
            return False
        poller = select.poll()
        poller.register(self._pipe or -1, select.POLLOUT)
        found = poller.poll(seconds * 1000)
        return bool(found) and not found[0][1] & ~select.POLLOUT

    def _complaint(self, then: str) -> str:
        """What happened to it; empty when there was none."""
        if self._process is None:
            return ""
        code, pid = self._exit_status(), self._process.pid
        if self._has_orphaned():
            return f"(pid {pid}) has ended this run's services, as the process whose worker it is has ended{then}"
        # One that can't begin has nowhere to tell why.
        program = f", {shlex.join(_program())}" if code and code > 0 else ""
        return f"(pid {pid}{program}) {'no longer answers' if code is None else exit_text(code)}{then}"

    def _has_orphaned(self) -> bool:
        """Whether it has ended the services because the process whose worker this is has ended."""
        return bool(self._keeper) and self._exit_status() == 0

    def _exit_status(self) -> int | None:
        """How it ended; ``None`` while it has not."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):  # Its end of the pipe is closed a moment before.
                return self._process.wait(_EXIT_PATIENCE)
        return None

    def _drop(self) -> subprocess.Popen[bytes] | None:
        descriptor, self._pipe = self._pipe, None
        if descriptor is not None:
            os.close(descriptor)
        process, self._process = self._process, None
        return process


def _program() -> list[str]:
    # sys.executable is empty in a program that embeds Python.
    return [sys.executable or "python3", "-I", "-S", _PROGRAM]


def _watched(limit: int, logs: Sequence[str]) -> str:
    """What follows an entry when there are logs to be looked at: apart from it, as it is kept unread."""
    # In digits, as a path may have any sign.
    return "\t" + " ".join([str(limit), *(os.fsencode(path).hex() for path in logs)]) if limit and logs else ""


def _libraries() -> Iterator[str]:
    """Where psutil is, which the reaper may need in the end; it does not know of packages that are installed."""
    found = importlib.util.find_spec("psutil")
    if found is not None and found.origin:
        yield os.path.dirname(os.path.dirname(found.origin))


def _warn(complaint: str) -> None:
    # Only when all is done: a warning may be an error (-W error).
    if complaint:
        warnings.warn(ReaperWarning(complaint), stacklevel=4)


def _disown(process: subprocess.Popen[bytes] | None) -> None:
    # Else its destructor would complain that it still runs; it is to outlive us.
    if process is not None and process.poll() is None:
        process.returncode = 0
