"""The record: one file a run, that names the run and its services to whoever comes later.

It holds neither environment nor secrets, lies in a directory that only its user may enter, and is written in one step.
What is torn, foreign or of another machine is told and left alone, never trusted.
"""

from __future__ import annotations

import functools
import json
import math
import os
import secrets
import signal
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from caseexec import processes
from caseexec.errors import Origin, Owner, RecordWarning

__all__ = ["RunRecord", "ServiceRecord", "directory", "elsewhere", "owner", "read_all", "remove", "write"]

_FORMAT = 1
# Torn files are small; a huge one is none of ours.
_LARGEST = 16 * 1024 * 1024
# Each is lost only to a run that ends just then.
_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class ServiceRecord:
    """A running service.

    :ivar mark: the mark that its processes carry.
    :ivar pid: its leader, which is its process group too.
    :ivar born: the leader's start time, only good to compare.
    :ivar service: what it is called.
    :ivar test_class: the test class that uses it; empty for an executor of one's own.
    :ivar since: when it was started, in seconds of the Unix epoch.
    :ivar stop_signal: what asks it to end.
    :ivar stop_command: what is run first when it is stopped, for somebody to read; its environment is not recorded.
    :ivar cgroup: the directory of its cgroup; empty without one.
    :ivar supervised: whether its leader is a supervisor.
    """

    mark: str
    pid: int
    born: float
    service: str = ""
    test_class: str = ""
    command: str = ""
    address: str = ""
    log: str = ""
    since: float = 0
    stop_signal: int = 15
    stop_command: str = ""
    cgroup: str = ""
    supervised: bool = False

    @property
    def leader(self) -> processes.Identity:
        """The leader, for good."""
        return processes.Identity(self.pid, self.born)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, and what it has.

    :ivar id: the run's id: what stands before the last dot of its services' marks.
    :ivar pid: the run's process.
    :ivar born: its start time, only good to compare.
    :ivar system: the machine's present life and process-id namespace; in another one these pids mean nothing.
    :ivar command: its command line.
    :ivar since: when it started its first service, in seconds of the Unix epoch.
    :ivar means: by which means its processes are found.
    :ivar reaper: the pid of its reaper; ``None`` without one.
    :ivar paths: its temporary directories and logs.
    :ivar where: the directory that the record was found in.
    """

    id: str
    pid: int
    born: float
    system: str
    command: str = ""
    cwd: str = ""
    since: float = 0
    means: tuple[str, ...] = ()
    reaper: int | None = None
    paths: tuple[str, ...] = ()
    services: tuple[ServiceRecord, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def alive(self) -> bool:
        """Whether the run's process lives."""
        status = processes.table().status(self.pid) if self.system == system() else None
        return status is not None and not status.zombie and status.identity.born == self.born


class Refused(OSError):
    """The directory of the records cannot be trusted, or cannot be made."""


def directory() -> str:
    """Where the records are: ``$XDG_RUNTIME_DIR/caseexec``, or ``caseexec-<uid>`` in the temporary directory."""
    return _directory(os.environ, tempfile.gettempdir())


def _directory(environment: Mapping[str, str], tmp: str) -> str:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_ours(runtime):
        return os.path.join(runtime, "caseexec")
    return os.path.join(tmp, f"caseexec-{os.getuid()}")


def elsewhere(pids: Iterable[int] | None = None) -> list[str]:
    """Where else this user's records are: where the environment of live services leads to.

    A run that was started with another TMPDIR or XDG_RUNTIME_DIR (by tox, an IDE, a CI step) has its record there.

    :param pids: look at these processes only.
    """
    table, found = processes.table(), set()
    for pid in table.everybody() if pids is None else pids:
        environment = processes.environment(pid) if table.mark(pid) else {}
        if environment:
            # As tempfile, which looks further only where there is no such directory.
            tmp = next(filter(None, map(environment.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")  # noqa: S108
            found.add(_directory(environment, tmp))
    return sorted(found - {directory()})


def _is_ours(path: str) -> bool:
    # After "su" or "sudo" it may still name the other user's, and in a container one that is not there.
    try:
        return os.stat(path).st_uid == os.getuid() and os.access(path, os.W_OK | os.X_OK)
    except OSError:
        return False


def _checked(path: str) -> str:
    """*path*, when nobody else can have put anything there.

    :raises Refused: it is a link, or somebody else's, or open to others.
    :raises FileNotFoundError: it is not there.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{path} is no directory{' but a link' if stat.S_ISLNK(found.st_mode) else ''}; remove it")
    if found.st_uid != os.getuid():
        owner = processes.user_name(found.st_uid)
        raise Refused(f"{path} belongs to user {owner}; remove it, or set TMPDIR to a directory of your own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Refused(f"{path} can be entered by other users; remove it, or: chmod 700 {path}")
    return path


def write(record: RunRecord, where: str) -> None:
    """Write a run's record; whoever reads meanwhile sees the former one or this one.

    :raises OSError: it cannot be written, or its directory cannot be trusted.
    """
    text = json.dumps({"format": _FORMAT, **vars(record), "services": [vars(service) for service in record.services]})
    for tries_left in reversed(range(_TRIES)):
        with suppress(FileExistsError):
            os.mkdir(where, 0o700)
        try:
            _replace(_checked(where), f"{record.id}.json", text)
            return
        except FileNotFoundError:  # Another run has just removed the directory, as it was empty.
            if not tries_left:
                raise


def _replace(where: str, name: str, text: str) -> None:
    new = os.path.join(where, f"{name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, os.path.join(where, name))
    except OSError:
        with suppress(OSError):
            os.unlink(new)
        raise


def remove(run_id: str, where: str) -> None:
    """Remove a run's record, and the directory with the last one; does nothing when there is none."""
    with suppress(OSError):
        # A killed run may have left one half-written, too.
        for name in os.listdir(_checked(where)):
            if name.startswith(f"{run_id}.json"):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(where, name))
        os.rmdir(where)


def read_all(further: Iterable[str] = ()) -> list[RunRecord]:
    """The records in :func:`directory`, the oldest first. A file that cannot be trusted is told and left out.

    :param further: directories to look into as well; one that cannot be trusted is passed over.
    :raises Refused: the directory cannot be trusted.
    """
    found: list[RunRecord] = []
    with suppress(FileNotFoundError):  # No run has anything, or the last one has just ended.
        found += _readable(_checked(directory()))
    for where in further:
        with suppress(OSError):
            found += _readable(_checked(where))
    return sorted(found, key=lambda record: record.since)


def _readable(where: str) -> Iterator[RunRecord]:
    for name in os.listdir(where):
        if not name.endswith(".json"):
            continue
        path = os.path.join(where, name)
        try:
            record = _read(path)
        except FileNotFoundError:  # Its run has just ended.
            continue
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            problem = f"it does not name {error}" if isinstance(error, KeyError) else str(error)
            remedy = "remove it when none of your test runs is alive"
            warnings.warn(RecordWarning(path, f"{problem}; {remedy}"), stacklevel=3)
            continue
        if record.system == system() or _is_over(record.system):
            yield record


def _read(path: str) -> RunRecord:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ValueError("it is not a file that only this user can read and write")
        if found.st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST} bytes")
        with open(descriptor, encoding="utf-8", closefd=False) as file:
            try:
                data = json.load(file)
            except ValueError as error:
                raise ValueError(f"it is torn, or no record at all ({error})") from None
    finally:
        os.close(descriptor)
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ValueError(f"it is not a record of format {_FORMAT}")
    if f"{data['id']}.json" != os.path.basename(path):
        raise ValueError("it is not the record of the run that its name says")
    services = tuple(_made(ServiceRecord, service) for service in data["services"])
    if not all(0 < service.stop_signal < signal.NSIG for service in services):
        raise ValueError("a signal in it is none")
    made: RunRecord = _made(RunRecord, {**data, "services": services, "where": os.path.dirname(path)})
    return made


def _made(kind: Any, data: dict[str, Any]) -> Any:
    """Make a record of what was read, each value of the type that belongs there."""
    types: dict[str, Any] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "int | None": (int, type(None)),
        "bool": (bool,),
    }
    values = {}
    for known in fields(kind):
        value = data[known.name]
        if known.name == "services":
            pass
        elif str(known.type).startswith("tuple"):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{known.name} is not made of strings")
            value = tuple(value)
        elif type(value) not in types[str(known.type)] or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{known.name} is {value!r}")
        values[known.name] = value
    if values["pid"] <= 0:
        raise ValueError(f"pid is {values['pid']}")
    return kind(**values)


def owner(pid: int) -> Owner:
    """Say who a process is, as far as it can be seen, and which run has started it, when one has."""
    return replace(processes.describe(pid), origin=_origin(pid))


def _origin(pid: int) -> Origin | None:
    marks = processes.marks_of(processes.mark_of(processes.table(), pid))[:1]
    status = processes.table().status(pid)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordWarning)
            records = read_all(elsewhere([pid]))
    except OSError:
        records = []
    for run in records:
        for service in run.services:
            if service.mark in marks or (status is not None and service.leader == status.identity):
                return Origin(run=run.id, pid=run.pid, alive=run.alive, command=run.command, own=run.pid == os.getpid(),
                              service=service.service, test_class=service.test_class, since=service.since)  # fmt: skip
    return Origin(run=marks[0].rpartition(".")[0], records=directory()) if marks else None


@functools.cache
def system() -> str:
    """The machine, its present life, and the process-id namespace: where a pid means something."""
    machine = os.uname().nodename
    if sys.platform != "linux":
        return machine
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError), open(path) as file:
            machine += f" {file.read().strip()}"
    with suppress(OSError):
        machine += f" {os.readlink('/proc/self/ns/pid')}"
    return machine


def _is_over(other: str) -> bool:
    """Whether this machine was started again since; in another namespace, or on another machine, a run may live."""
    ours, theirs = system().split(), other.split()
    return len(ours) == len(theirs) == 4 and ours[:2] == theirs[:2] and ours[2] != theirs[2]
