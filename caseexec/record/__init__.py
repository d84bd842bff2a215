"""The record: one file a run, that names the run and its services to whoever comes later; and one a leased port.

They hold neither environment nor secrets, lie in a directory that only its user may enter, and are written in one step.
What is torn, foreign or of another machine is told and left alone, never trusted.
"""

from __future__ import annotations

from caseexec.record.facts import RunRecord, ServiceRecord
from caseexec.record.files import locked
from caseexec.record.leases import give_back_lease, lease_holder, lease_path, prune_leases, take_lease
from caseexec.record.origin import owner
from caseexec.record.place import Refused, checked, directory, elsewhere, lease_directory, system, tell_unusable
from caseexec.record.store import exists, read_all, remove, write

__all__ = [
    "Refused", "RunRecord", "ServiceRecord", "checked", "directory", "elsewhere", "exists", "give_back_lease",
    "lease_directory", "lease_holder", "lease_path", "locked", "owner", "prune_leases", "read_all", "remove", "system",
    "take_lease", "tell_unusable", "write",
]  # fmt: skip
