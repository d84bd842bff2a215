"""Probes: one readiness check each, in words that complete "waiting for ...".

A probe looks once. It returns when the service is ready and raises :class:`NotReady` with the refusal when it is not
yet; anything else it raises ends the wait. Whoever waits asks again.
"""

from caseexec.probes.base import Claim, NotReady, Probe, Target
from caseexec.probes.combined import CallableProbe, all_of, any_of, as_probe
from caseexec.probes.command import CommandProbe
from caseexec.probes.http import HTTPProbe
from caseexec.probes.output import OutputProbe
from caseexec.probes.pidfile import PidProbe
from caseexec.probes.tcp import TCPProbe, require_ours
from caseexec.probes.unixsocket import UnixSocketProbe

__all__ = [
    "CallableProbe",
    "Claim",
    "CommandProbe",
    "HTTPProbe",
    "NotReady",
    "OutputProbe",
    "PidProbe",
    "Probe",
    "TCPProbe",
    "Target",
    "UnixSocketProbe",
    "all_of",
    "any_of",
    "as_probe",
    "require_ours",
]
