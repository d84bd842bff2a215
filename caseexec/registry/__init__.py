"""What this run owns: its process groups and its directories; the record of them; and the sweep at exit.

A *run* is one Python process that starts services. Everything is entered here before it exists, and left out only
when it is gone, so that the sweep, and the reaper that outlives the run, find it whatever happened in between.
"""

from __future__ import annotations

from caseexec.plan import StopPlan
from caseexec.registry.owned import About, OwnedGroup
from caseexec.registry.run import Run, current_run

__all__ = ["About", "OwnedGroup", "Run", "StopPlan", "current_run"]
