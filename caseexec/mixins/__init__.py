"""Mixins that give a test class its services: started before its tests, gone after them.

They derive from :class:`unittest.TestCase`, so that a mixin named behind ``TestCase``, where Python would never call
it, is an error when the class is defined.
"""

from caseexec.mixins.base import ServicesMixin
from caseexec.mixins.single import (
    CommandServiceMixin,
    HTTPServiceMixin,
    OutputServiceMixin,
    PidServiceMixin,
    ServiceMixin,
    TCPServiceMixin,
    UnixSocketServiceMixin,
)

__all__ = [
    "CommandServiceMixin",
    "HTTPServiceMixin",
    "OutputServiceMixin",
    "PidServiceMixin",
    "ServiceMixin",
    "ServicesMixin",
    "TCPServiceMixin",
    "UnixSocketServiceMixin",
]
