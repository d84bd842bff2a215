"""The record: one file a run, that names the run and its services to whoever comes later.

It holds neither environment nor secrets, lies in a directory that only its user may enter, and is written in one step.
What is torn, foreign or of another machine is told and left alone, never trusted.
"""

from __future__ import annotations

from caseexec.record.facts import RunRecord, ServiceRecord
from caseexec.record.origin import owner
from caseexec.record.place import Refused, directory, elsewhere, system
from caseexec.record.store import exists, read_all, remove, write

__all__ = [
    "Refused", "RunRecord", "ServiceRecord", "directory", "elsewhere", "exists", "owner", "read_all", "remove",
    "system", "write",
]  # fmt: skip
