"""Declarations: a command, how to know that it is ready, and options. Not running, never changed.

A declaration is checked when it is made, and makes an executor for each start.
"""

from caseexec.service.base import SCOPES, Command, Service
from caseexec.service.graph import Plan
from caseexec.service.kinds import (
    CommandService,
    HTTPService,
    OneShot,
    OutputService,
    PidService,
    TCPService,
    UnixSocketService,
)

__all__ = [
    "SCOPES",
    "Command",
    "CommandService",
    "HTTPService",
    "OneShot",
    "OutputService",
    "PidService",
    "Plan",
    "Service",
    "TCPService",
    "UnixSocketService",
]
