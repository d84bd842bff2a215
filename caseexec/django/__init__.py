"""At home in Django: settings made of running services, and a test runner that has some.

Nothing else in caseexec imports Django. ``"caseexec.django"`` may be one of ``INSTALLED_APPS``, for its system checks.
The names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from caseexec.placeholders import nearest

if TYPE_CHECKING:
    from caseexec.django.mixin import ServiceSettingsMixin
    from caseexec.django.runner import ServicesRunner, ServicesRunnerMixin

__all__ = ["ServiceSettingsMixin", "ServicesRunner", "ServicesRunnerMixin"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "mixin" if name == "ServiceSettingsMixin" else "runner"
        return getattr(import_module(f"caseexec.django.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{nearest(name, __all__)}")
