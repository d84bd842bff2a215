"""What the settings say of services: which there are, and in which settings their addresses go."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import load_backend

from caseexec.errors import DeclarationError
from caseexec.executors import Executor
from caseexec.placeholders import fill
from caseexec.registry import current_run
from caseexec.service import Plan, Service

__all__ = [
    "SERVICES", "SETTINGS", "django_setting", "entries", "filled", "kept", "plan_of", "present_entry",
    "services_of_settings",
]  # fmt: skip

SERVICES = "CASEEXEC_SERVICES"
"""The setting with the declarations by their names."""

SETTINGS = "CASEEXEC_SETTINGS"
"""The setting that tells in which others the addresses go."""

# What names, in an entry, the client that Django uses.
_ENGINE = {"DATABASES": "ENGINE", "CACHES": "BACKEND"}


def services_of_settings() -> dict[str, Service[Any]]:
    """The declarations in the settings, by name; not checked."""
    return getattr(settings, SERVICES, {})


def plan_of(services: Mapping[str, Service[Any]], place: str) -> Plan:
    """Which service needs which.

    :param place: what errors call them all (``CASEEXEC_SERVICES``).
    :raises DeclarationError: as :meth:`caseexec.service.Plan.of`; or one is none that a runner can have.
    """
    named = {name: service.replace(where=f"{place}[{name!r}].") for name, service in services.items()}
    plan = Plan.of(named, list(services.items()))
    for service in named.values():
        for option, placeholder in service.of_class():
            problem = f"{{{placeholder}}} is of a test class, and the runner's services start before all classes"
            raise DeclarationError(service.place(option), f"{problem}: declare it as an attribute of the class")
        for option in ("scope", "restart", "reset", "if_missing"):
            if getattr(service, option) != getattr(type(service), option):
                problem = "the runner's services run from before the first test to behind the last"
                raise DeclarationError(service.place(option), f"{problem}: leave it out")
    return plan


def django_setting(service: Service[Any]) -> str:
    """The setting that has an entry for a service of that kind; empty: none has."""
    return str(getattr(getattr(service, "runs_as", None), "django_setting", ""))


def present_entry(setting: str, name: str) -> dict[str, Any] | None:
    """The entry of a setting that a service of that name takes over; ``None``: it takes none."""
    present = getattr(settings, setting, {}) if setting else {}
    return dict(present.get(name) or {}) if setting and (name in present or name == "default") else None


def kept(service: Service[Any], name: str) -> Service[Any]:
    """The declaration, with data that stay behind the run for the next one of this project, if it can have such.

    Each worker has its own, as one server only can use them.
    """
    if "keep" not in {option.name for option in fields(service)} or service.keep:
        return service
    module = getattr(sys.modules.get(settings.SETTINGS_MODULE), "__file__", None)
    project = os.path.dirname(os.path.abspath(module)) if module else os.getcwd()
    worker = current_run().worker
    readable = re.sub(r"\W+", "-", "-".join([os.path.basename(project), name, *filter(None, [worker])]), flags=re.ASCII)
    return service.replace(keep=f"django-{readable}-{hashlib.sha256(project.encode()).hexdigest()[:12]}")


def entries(executors: Mapping[str, Executor]) -> dict[str, Any]:
    """The entries of ``DATABASES`` and ``CACHES`` that are services of that name, by their dotted paths."""
    found = {}
    for name, executor in executors.items():
        setting = getattr(executor, "django_setting", "")
        present = present_entry(setting, name)
        if present is not None:
            ours = executor.django_settings()  # type: ignore[attr-defined]
            found[f"{setting}.{name}"] = _entry(setting, present, ours)
    return found


def _entry(setting: str, present: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with the service's address, and all else as the project has it, as far as it can mean that service."""
    engine = _ENGINE[setting]
    entry = {**present, **ours}
    if _kind(setting, present.get(engine)) == _kind(setting, ours[engine]):
        return {**entry, engine: present[engine]}
    entry.pop("OPTIONS", None)
    if "TEST" in entry:
        entry["TEST"] = {key: value for key, value in entry["TEST"].items() if key != "NAME"}
    return entry


def _kind(setting: str, engine: object) -> str:
    """What engines have in common that can take each other's place, as that of PostGIS can PostgreSQL's."""
    if not isinstance(engine, str):
        return ""
    if setting == "DATABASES":
        try:
            return str(load_backend(engine).DatabaseWrapper.vendor)
        except (ImproperlyConfigured, ImportError):  # Its client is not installed, and not needed in tests.
            return engine
    return engine.rpartition(".")[2]


def filled(template: Any, values: Mapping[str, str]) -> Any:
    """A setting with the placeholders filled in all strings in it."""
    if isinstance(template, str):
        return fill(template, values)
    if isinstance(template, Mapping):
        return {key: filled(value, values) for key, value in template.items()}
    if isinstance(template, (list, tuple)):
        return type(template)([filled(value, values) for value in template])
    return template
