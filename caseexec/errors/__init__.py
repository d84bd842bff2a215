"""Every error and warning: facts as attributes, text composed from them, picklable.

An error of an executor tells what was run, what was awaited and for how long, the last refusal, how the process
ended, and the last lines that it wrote. The facts are in :attr:`ExecutorError.facts`; the text is made of them.
"""

from __future__ import annotations

from caseexec.errors.facts import Facts, Origin, Owner
from caseexec.errors.raised import (
    AlreadyRunning,
    CommandNotExecutable,
    CommandNotFound,
    DeclarationError,
    ExecutorError,
    PreparationFailed,
    ProcessExitedWithError,
    ProcessFinishedWithError,
    TimeoutExpired,
    UnsupportedPlatform,
)
from caseexec.errors.services import NotOurs, OutputNotFound, ServiceDied, ServiceNotStarted, ServiceUnavailable
from caseexec.errors.text import (
    SCALE,
    add_note,
    exit_text,
    printable,
    seconds_text,
    shorten,
    signal_name,
    text_of,
)
from caseexec.errors.warned import (
    BlindWarning,
    CrashWarning,
    ForcedKillWarning,
    LeakedProcessWarning,
    ReaperWarning,
    RecordWarning,
)

__all__ = [
    "SCALE",
    "AlreadyRunning",
    "BlindWarning",
    "CommandNotExecutable",
    "CommandNotFound",
    "CrashWarning",
    "DeclarationError",
    "ExecutorError",
    "Facts",
    "ForcedKillWarning",
    "LeakedProcessWarning",
    "NotOurs",
    "Origin",
    "OutputNotFound",
    "Owner",
    "PreparationFailed",
    "ProcessExitedWithError",
    "ProcessFinishedWithError",
    "ReaperWarning",
    "RecordWarning",
    "ServiceDied",
    "ServiceNotStarted",
    "ServiceUnavailable",
    "TimeoutExpired",
    "UnsupportedPlatform",
    "add_note",
    "exit_text",
    "printable",
    "seconds_text",
    "shorten",
    "signal_name",
    "text_of",
]

for _name in set(__all__) - {"SCALE"}:
    globals()[_name].__module__ = __name__  # A traceback names them where they are to be imported from.
