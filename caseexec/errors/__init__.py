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
    ProcessExitedWithError,
    ProcessFinishedWithError,
    ServiceNotStarted,
    TimeoutExpired,
    UnsupportedPlatform,
)
from caseexec.errors.text import exit_text, printable, seconds_text, shorten, signal_name
from caseexec.errors.warned import BlindWarning, ForcedKillWarning, LeakedProcessWarning, ReaperWarning, RecordWarning

__all__ = [
    "AlreadyRunning",
    "BlindWarning",
    "CommandNotExecutable",
    "CommandNotFound",
    "DeclarationError",
    "ExecutorError",
    "Facts",
    "ForcedKillWarning",
    "LeakedProcessWarning",
    "Origin",
    "Owner",
    "ProcessExitedWithError",
    "ProcessFinishedWithError",
    "ReaperWarning",
    "RecordWarning",
    "ServiceNotStarted",
    "TimeoutExpired",
    "UnsupportedPlatform",
    "exit_text",
    "printable",
    "seconds_text",
    "shorten",
    "signal_name",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # A traceback names them where they are to be imported from.
