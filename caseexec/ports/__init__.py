"""Ports: leases of free ones, and who listens on one."""

from __future__ import annotations

from caseexec.ports.leases import free_port, is_free, release, release_all, watch
from caseexec.ports.listening import Listener, listeners

__all__ = ["Listener", "free_port", "is_free", "listeners", "release", "release_all", "watch"]
