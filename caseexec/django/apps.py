"""For ``INSTALLED_APPS``: the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from caseexec.django.checks import check_services

__all__ = ["ServicesConfig"]


class ServicesConfig(AppConfig):
    """``"caseexec.django"`` in ``INSTALLED_APPS`` has ``manage.py check`` look at the services, too."""

    name = "caseexec.django"
    label = "caseexec"
    verbose_name = "caseexec"

    def ready(self) -> None:
        """Register the checks."""
        checks.register(check_services, "caseexec")
