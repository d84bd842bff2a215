"""When running services begin and when they go, who shares them, and what happens to them in between."""

from caseexec.scopes.keeping import keeping
from caseexec.scopes.launch import Launch
from caseexec.scopes.outside import existing, skip_if_missing
from caseexec.scopes.services import ClassServices
from caseexec.scopes.several import Services
from caseexec.scopes.shared import Key, Shared, await_class, class_ends, end_modules, end_run, share
from caseexec.scopes.watch import Watch
from caseexec.scopes.watches import Told, Watches

__all__ = [
    "ClassServices",
    "Key",
    "Launch",
    "Services",
    "Shared",
    "Told",
    "Watch",
    "Watches",
    "await_class",
    "class_ends",
    "end_modules",
    "end_run",
    "existing",
    "keeping",
    "share",
    "skip_if_missing",
]
