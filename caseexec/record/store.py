"""Records as files: written in one step, and read with distrust."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from typing import Any

from caseexec.errors import RecordWarning
from caseexec.record import files, place
from caseexec.record.facts import RunRecord, ServiceRecord

__all__ = ["exists", "read_all", "remove", "write"]

_FORMAT = 1
# Torn files are small; a huge one is none of ours.
_LARGEST = 16 * 1024 * 1024


def write(record: RunRecord, where: str) -> None:
    """Write a run's record; whoever reads meanwhile sees the former one or this one.

    :raises OSError: it cannot be written, or its directory cannot be trusted.
    """
    text = json.dumps({"format": _FORMAT, **vars(record), "services": [vars(service) for service in record.services]})
    files.put(where, f"{record.id}.json", text, os.replace)


def remove(run_id: str, where: str) -> None:
    """Remove a run's record, and the directory with the last one; does nothing when there is none."""
    with suppress(OSError):
        # A killed run may have left one half-written, too.
        for name in os.listdir(place.checked(where)):
            if name.startswith(f"{run_id}.json"):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(where, name))
        os.rmdir(where)


def exists(record: RunRecord) -> bool:
    """Whether a record that was read is still there."""
    return os.path.exists(os.path.join(record.where, f"{record.id}.json"))


def _warn(warning: RecordWarning) -> None:
    warnings.warn(warning, stacklevel=4)


def read_all(further: Iterable[str] = (), unreadable: Callable[[RecordWarning], object] = _warn) -> list[RunRecord]:
    """The records in :func:`directory`, the oldest first. A file that cannot be trusted is told and left out.

    :param further: directories to look into as well; one that cannot be trusted is passed over.
    :param unreadable: what to do with the warning of a file that is left out; by default it is given.
    :raises Refused: the directory cannot be trusted.
    """
    found: list[RunRecord] = []
    with suppress(FileNotFoundError):  # No run has anything, or the last one has just ended.
        found += _readable(place.checked(place.directory()), unreadable)
    for where in further:
        with suppress(OSError):
            found += _readable(place.checked(where), unreadable)
    return sorted(found, key=lambda record: record.since)


def _readable(where: str, unreadable: Callable[[RecordWarning], object]) -> Iterator[RunRecord]:
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
            unreadable(RecordWarning(path, f"{problem}; {remedy}"))
            continue
        if record.system == place.system() or place.is_over(record.system):
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
    if not data["id"] or not all(service.mark.rpartition(".")[0] == data["id"] for service in services):
        raise ValueError("a mark in it is not one of its run's")
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
        if known.name == "worker" and known.name not in data:  # An older version wrote it.
            continue
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
