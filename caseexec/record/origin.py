"""Who a process is, and which run has started it."""

from __future__ import annotations

import os
from dataclasses import replace

from caseexec import processes
from caseexec.errors import Origin, Owner, RecordWarning
from caseexec.record import place
from caseexec.record.store import read_all

__all__ = ["owner"]


def owner(pid: int) -> Owner:
    """Say who a process is, as far as it can be seen, and which run has started it, when one has."""
    return replace(processes.describe(pid), origin=_origin(pid))


def _origin(pid: int) -> Origin | None:
    marks = processes.marks_of(processes.mark_of(processes.table(), pid))[:1]
    status = processes.table().status(pid)
    try:
        records = read_all(place.elsewhere([pid]), unreadable=_pass_over)
    except OSError:
        records = []
    for run in records:
        for service in run.services:
            if service.mark in marks or (status is not None and service.leader == status.identity):
                return Origin(run=run.id, pid=run.pid, alive=run.alive, command=run.command, own=run.pid == os.getpid(),
                              service=service.service, test_class=service.test_class, since=service.since)  # fmt: skip
    return Origin(run=marks[0].rpartition(".")[0], records=place.directory()) if marks else None


def _pass_over(warning: RecordWarning) -> None:
    """Not by the warning filters: they are those of all threads."""
