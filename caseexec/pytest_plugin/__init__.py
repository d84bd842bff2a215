"""What pytest gets when caseexec is installed: shared services end when they should, and :func:`service_fixture`.

It is inert until a suite uses caseexec: all but what is in this module is imported, and registered with pytest, when
the collected tests have loaded caseexec's declarations. Without it (``-p no:caseexec``) the mixins work all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from caseexec.executors import Executor
    from caseexec.service import Service

__all__ = ["service_fixture"]

# What the workers of pytest-xdist have told.
_TOLD = pytest.StashKey[list[dict[str, Any]]]()


def service_fixture(declaration: Service[Any], *, scope: str | None = None, name: str | None = None) -> Any:
    """A fixture of a declaration: it is the running executor.

    ``redis = service_fixture(TCPService("redis-server --port {port}"), scope="session")`` in a ``conftest.py`` or in
    a test module makes the fixture ``redis``. All options of a declaration hold: ``reset`` is called before each test
    that names the fixture, itself or through others; one that has died is an error of the next of these tests. Its
    placeholders (``{redis.port}``) and ``after=("redis",)`` name other fixtures that were made by this function.

    :param scope: pytest's ``"function"``, ``"class"``, ``"module"``, ``"package"`` or ``"session"``; by default it is
        the declaration's. With ``"module"`` and ``"session"`` the service is shared with all, fixtures and test
        classes, that declare an equal one.
    :param name: the fixture's name; by default that of the variable.
    :raises DeclarationError: the declaration's own ``scope`` says otherwise, or it is none.
    """
    from caseexec.pytest_plugin.fixtures import ServiceFixture

    # As collections.namedtuple: errors, and pytest --fixtures, say where it was made.
    caller = sys._getframe(1)
    module = caller.f_globals.get("__name__", "")
    return ServiceFixture(declaration, scope, name, module).made(in_class="__qualname__" in caller.f_locals)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("caseexec", "services of tests (caseexec)")
    group.addoption(
        "--caseexec-keep",
        action="store_true",
        help="keep the services' logs and temporary directories, and tell where they are",
    )
    group.addoption(
        "--caseexec-log-dir",
        type=os.path.abspath,  # Workers of pytest-xdist may be elsewhere.
        metavar="DIR",
        help="keep the services' logs in this directory (as the environment variable CASEEXEC_LOG_DIR)",
    )
    parser.addini(
        "caseexec_django",
        "have the services of Django's settings (CASEEXEC_SERVICES) run for all tests (with pytest-django)",
        type="bool",
    )


@pytest.fixture(scope="session")
def caseexec_django(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Executor]]:
    """The services of Django's settings (CASEEXEC_SERVICES), by name, with pytest-django."""
    from caseexec.pytest_plugin.django import run_services

    yield from run_services(request, for_all=request.config.getini("caseexec_django"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have each test use them, and before anything else, when the configuration says so."""
    if config.getini("caseexec_django"):
        for item in items:
            fixtures: list[str] = getattr(item, "fixturenames", [])
            if "caseexec_django" not in fixtures:
                fixtures.insert(0, "caseexec_django")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, when the tests that were collected have loaded what declares services."""
    if "caseexec.scopes" in sys.modules and not session.config.getoption("collectonly"):
        from caseexec.pytest_plugin.session import ServicesPlugin

        session.config.pluginmanager.register(ServicesPlugin(session), "caseexec-services")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Note what a worker of pytest-xdist has told."""
    told = getattr(node, "workeroutput", {}).get("caseexec")  # One that has crashed has none.
    if told:
        node.config.stash.setdefault(_TOLD, []).append(told)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell what they had."""
    for told in (config.stash.get(_TOLD, None), config.pluginmanager.get_plugin("caseexec-services")):
        if told:
            from caseexec.pytest_plugin.summary import tell

            tell(terminalreporter, told if isinstance(told, list) else [told.told()], config)
