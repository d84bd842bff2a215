"""System checks of the services that the settings declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.test.utils import get_runner

from caseexec.django.declared import SERVICES, SETTINGS, django_setting, plan_of, present_entry, services_of_settings
from caseexec.django.settings import changed
from caseexec.errors import DeclarationError
from caseexec.placeholders import names, nearest
from caseexec.scopes import existing
from caseexec.service import Plan, Service
from caseexec.service.graph import service_of

__all__ = ["MISSING_PROGRAM", "check_all", "check_services"]

MISSING_PROGRAM = "caseexec.E001"
_WRONG_SERVICE = "caseexec.E002"
_WRONG_SETTING = "caseexec.E003"
_WRONG_PLACEHOLDER = "caseexec.E004"
_REACHES_NOTHING = "caseexec.W001"
_STARTS_NOTHING = "caseexec.W002"


def check_services(app_configs: object = None, **kwargs: Any) -> list[CheckMessage]:
    """What is wrong with ``CASEEXEC_SERVICES`` and ``CASEEXEC_SETTINGS``."""
    if hasattr(settings, SERVICES):
        return [*check_all(services_of_settings(), SERVICES), *_of_runner()]
    return [*_of_names()]  # The services are those of a project's own runner, if there are any.


def check_all(services: object, place: str) -> list[CheckMessage]:
    """What is wrong with services, and with what the settings do with them.

    :param place: what errors call them.
    """
    return [*_of_names(), *_of_services(services, place)]


def _of_services(services: object, place: str) -> list[CheckMessage]:
    wrong = [Error(problem, id=_WRONG_SERVICE) for problem in _of_shape(services, place)]
    if wrong:
        return [*wrong]
    assert isinstance(services, Mapping)
    try:
        plan = plan_of(services, place)
    except DeclarationError as error:
        return [Error(str(error), id=_WRONG_SERVICE)]
    return [*_of_programs(plan), *_of_settings(plan), *_of_use(plan, place)]


def _of_names() -> Iterator[CheckMessage]:
    ours = (SERVICES, SETTINGS)
    for name in dir(settings):
        if name.isupper() and name not in ours and (hint := nearest(name, ours, 0.8)):
            yield Error(f"the setting {name} means nothing{hint}", id=_WRONG_SETTING)


def _of_runner() -> Iterator[CheckMessage]:
    """A test runner that starts none of them. What is no runner at all ``manage.py test`` tells by itself."""
    with suppress(ImportError, AttributeError):
        runner = get_runner(settings)
        if not (isinstance(runner, type) and hasattr(runner, "running_services")):
            problem = f"{SERVICES} are not started by manage.py test, as TEST_RUNNER is {settings.TEST_RUNNER!r}"
            way_out = (
                "Set TEST_RUNNER = 'caseexec.django.ServicesRunner', or derive yours from ServicesRunnerMixin. For "
                "pytest alone, silence this with SILENCED_SYSTEM_CHECKS."
            )
            yield Warning(problem, way_out, id=_STARTS_NOTHING)


def _of_shape(services: object, place: str) -> Iterator[str]:
    if not isinstance(services, Mapping):
        yield f"{place}: a {type(services).__name__} is no dict of declarations by name: write {{'redis': Redis()}}"
        return
    for name, service in services.items():
        if not isinstance(name, str) or not name or set(name) & set(".{}"):
            yield f"{place}[{name!r}]: that is no name of a service: write a word"
        elif not isinstance(service, Service):
            way_out = f": write {service.__name__}()" if isinstance(service, type) else ", such as Redis()"
            yield f"{place}[{name!r}]: {service!r} is no declaration of a service{way_out}"


def _of_programs(plan: Plan) -> Iterator[CheckMessage]:
    for name, service in plan.services.items():
        if not existing(service, name):
            for option, problem in service.missing():
                yield Error(f"{service.place(option)}: {problem}", id=MISSING_PROGRAM)


def _of_settings(plan: Plan) -> Iterator[CheckMessage]:
    changes = getattr(settings, SETTINGS, {})
    for placeholder in dict.fromkeys(names(changes)):
        try:
            if "." not in placeholder:
                way_out = f"name a service, as in {{redis.url}}; for the braces themselves write {{{{{placeholder}}}}}"
                raise DeclarationError(SETTINGS, f"there is no placeholder {{{placeholder}}}: {way_out}")
            service_of(placeholder, plan.services, SETTINGS)
        except DeclarationError as error:
            yield Error(str(error), id=_WRONG_PLACEHOLDER)
    # With the entries of the services, as it will be in the run.
    there: dict[str, Any] = {}
    for name, service in plan.services.items():
        entry = present_entry(django_setting(service), name)
        if entry is not None:
            there[f"{django_setting(service)}.{name}"] = entry
    try:
        changed({**there, **changes} if isinstance(changes, Mapping) else changes, SETTINGS)
    except DeclarationError as error:
        yield Error(str(error), id=_WRONG_SETTING)


def _of_use(plan: Plan, place: str) -> Iterator[CheckMessage]:
    """Services that are of no use to anybody, as their name is misspelt."""
    named = {placeholder.partition(".")[0] for placeholder in names(getattr(settings, SETTINGS, {}))}
    named.update(*plan.needs.values())
    for name, service in plan.services.items():
        setting = django_setting(service)
        if setting and name not in named and present_entry(setting, name) is None:
            hint = nearest(name, getattr(settings, setting, {}))
            problem = f"nothing is told where it is, as its name is none of {setting}{hint}"
            way_out = f"Name it in {SETTINGS}, by {{{name}.url}}."
            yield Warning(f"{place}[{name!r}]: {problem}", way_out, id=_REACHES_NOTHING)
