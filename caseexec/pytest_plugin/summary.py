"""What pytest tells of services in its header and its summary."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from caseexec.errors import printable, shorten
from caseexec.executors.command import program_name
from caseexec.mixins import ServicesMixin
from caseexec.pytest_plugin.fixtures import used_by
from caseexec.scopes import existing
from caseexec.service import Service
from caseexec.service.programs import find_program

__all__ = ["programs", "tell"]


def programs(items: Sequence[pytest.Item]) -> list[str]:
    """The programs of the services that some tests use, each once, with what is known of it without starting it."""
    services = [named for item in items for named in _services(item)]
    once = {(name, id(service)): (name, service) for name, service in services if service.keeps_running}
    return list(dict.fromkeys(_described(name, service) for name, service in once.values()))


def _services(item: pytest.Item) -> Iterator[tuple[str, Service[Any]]]:
    case = getattr(item, "cls", None)
    if isinstance(case, type) and issubclass(case, ServicesMixin):
        yield from case._service_plan.services.items()
    for name, fixture in used_by(item).items():
        yield name, fixture.declaration


def _described(name: str, service: Service[Any]) -> str:
    try:
        there = existing(service, name)
        if there is not None:
            return f"{name} ({there.by})"
        version = getattr(service, "version", None)
        if callable(version):
            return f"{type(service).__name__} {_version(version)}"
        return _program(service)
    except Exception:  # It is only told; the test that needs it has the error.
        return type(service).__name__


def _program(service: Service[Any]) -> str:
    assert service.command is not None
    program, path = find_program(service.command, service.shell, service.cwd, service.env)
    if service.shell:
        return shorten(program, 30)
    if path is None:
        return f"{program} (not installed)"
    words = shlex.split(service.command) if isinstance(service.command, str) else service.command
    filled = [os.fspath(word).replace("{python}", sys.executable) for word in map(str, words)]
    return f"{program_name(filled)} ({path or filled[0]})"


def _version(version: Any) -> str:
    try:
        return shorten(printable(str(version())))
    except FileNotFoundError:
        return "(not installed)"
    except Exception:
        return "(version unknown)"


def tell(reporter: Any, told: Sequence[Mapping[str, Any]], config: pytest.Config) -> None:
    """Write what a session, or each of its workers, has to tell at the end."""
    for line in dict.fromkeys(line for one in told for line in one["services"]):
        if config.getoption("verbose") >= 0:
            reporter.write_line(line)
    kept = [line for one in told for line in one["kept"]]
    if kept:
        reporter.write_sep("=", "services kept (--caseexec-keep)")
        for worker, who, path in kept:
            reporter.write_line(f"{worker and f'[{worker}] '}{who}: {path}")
