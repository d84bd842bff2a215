"""Executors: the objects that own one running command each.

Names, arguments and behaviour are those of mirakuru's public API, so that a suite written for it changes its imports.
"""

from caseexec.executors.declared import Declared
from caseexec.executors.kinds import (
    URL,
    CommandExecutor,
    HTTPExecutor,
    OutputExecutor,
    PidExecutor,
    TCPExecutor,
    UnixSocketExecutor,
)
from caseexec.executors.oneshot import OneShotExecutor
from caseexec.executors.reading import OutputMark
from caseexec.executors.simple import SimpleExecutor
from caseexec.executors.waiting import Executor

__all__ = [
    "URL",
    "CommandExecutor",
    "Declared",
    "Executor",
    "HTTPExecutor",
    "OneShotExecutor",
    "OutputExecutor",
    "OutputMark",
    "PidExecutor",
    "SimpleExecutor",
    "TCPExecutor",
    "UnixSocketExecutor",
]
