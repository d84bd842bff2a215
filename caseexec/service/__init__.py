"""Declarations: a command, how to know that it is ready, and options. Not running, never changed.

A declaration is checked when it is made, and makes an executor for each start.
"""

from caseexec.service.base import Service
from caseexec.service.kinds import (
    CommandService,
    HTTPService,
    OutputService,
    PidService,
    TCPService,
    UnixSocketService,
)

__all__ = [
    "CommandService",
    "HTTPService",
    "OutputService",
    "PidService",
    "Service",
    "TCPService",
    "UnixSocketService",
]
