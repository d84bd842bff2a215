"""When running services begin and when they go, who shares them, and what happens to them in between."""

from caseexec.scopes.launch import Launch
from caseexec.scopes.outside import existing
from caseexec.scopes.services import ClassServices
from caseexec.scopes.several import Services
from caseexec.scopes.shared import await_class, class_ends

__all__ = ["ClassServices", "Launch", "Services", "await_class", "class_ends", "existing"]
