"""Fixtures of declarations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any, cast
from weakref import WeakSet

import pytest

from caseexec.errors import DeclarationError
from caseexec.executors import Executor
from caseexec.placeholders import nearest
from caseexec.scopes import Key, Launch, Shared, Watch, Watches, existing, share, skip_if_missing
from caseexec.service import Plan, Service

__all__ = ["PRESENT", "Present", "ServiceFixture", "marked", "plan_of", "used_by"]

# Its frames are left out of the traceback of a failed test.
__tracebackhide__ = True

# What a declaration calls the scopes of pytest. A package is none of its own, and shared by whoever is in there.
_SCOPES = {"function": "test", "class": "class", "package": "class", "module": "module", "session": "session"}
_MARK = "_caseexec_fixture"


@dataclass
class Present:
    """The test that is at work.

    :ivar moment: what errors call it.
    :ivar plan: its service fixtures.
    :ivar watches: those that were made ready for it.
    """

    moment: str = ""
    plan: Plan = field(default_factory=lambda: Plan({}, {}))
    watches: Watches = field(default_factory=Watches)


PRESENT = pytest.StashKey[Present]()
"""Where it stands in the configuration, while the plugin is at work."""


class ServiceFixture:
    """What :func:`caseexec.pytest_plugin.service_fixture` has made a fixture of.

    :param module: where that was.
    :ivar declaration: with the scope of the fixture.
    :ivar running: what runs of it, by the fixture's name; a module may give it another one when it imports it.
    :ivar keys: whom each of these shares it with.
    :ivar problems: what could not be started, by the fixture's name: in one line, and which test was told all.
    """

    def __init__(self, declaration: Service[Any], scope: str | None, name: str | None, module: str) -> None:
        self.module = module
        self.place = f"{module}.{name}" if name else f"service_fixture() in {module}"
        self.name = name
        self.declaration, self.scope = self._checked(declaration, scope)
        self.needs = _needs(self.declaration, self.place)
        self.running: dict[str, Watch] = {}
        self.keys: dict[str, Key] = {}
        self.problems: dict[str, tuple[str, str]] = {}
        _made.add(self)

    def _checked(self, declaration: Service[Any], scope: str | None) -> tuple[Service[Any], str]:
        if not isinstance(declaration, Service):
            problem = f"{declaration!r} is no declaration: give it one, such as TCPService(...)"
            raise DeclarationError(self.place, problem)
        own = next(pytests for pytests, ours in _SCOPES.items() if ours == declaration.scope)
        chosen = own if scope is None else scope
        if chosen not in _SCOPES:
            known = " or ".join(f'"{known}"' for known in _SCOPES)
            problem = f"its scope is {scope!r}, but can only be {known}{nearest(str(scope), _SCOPES)}"
            raise DeclarationError(self.place, problem)
        # What the declaration has by default, it does not insist on.
        if declaration.scope not in (Service.scope, _SCOPES[chosen]):
            problem = f"its scope is {scope!r}, but the declaration's own is {declaration.scope!r}"
            way_out = f"leave one of them out, or give it declaration.replace(scope={_SCOPES[chosen]!r})"
            raise DeclarationError(self.place, f"{problem}: {way_out}")
        return declaration.replace(scope=_SCOPES[chosen]), chosen

    def made(self, in_class: bool = False) -> Any:
        """The fixture, for pytest; in the body of a class it must not become a method."""
        # The others that it needs are arguments: so pytest knows of them before any is set up.
        needed = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in self.needs]
        request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD)

        def service(request: pytest.FixtureRequest, **needed: object) -> Iterator[Executor]:
            yield from self._run(request, needed)

        service.__signature__ = inspect.Signature([request, *needed])  # type: ignore[attr-defined]
        service.__module__ = self.module
        service.__doc__ = f"The running {type(self.declaration).__name__}, {self.declaration.command!r}."
        setattr(service, _MARK, self)
        function = staticmethod(service) if in_class else service
        return pytest.fixture(scope=self.scope, name=self.name)(function)  # type: ignore[call-overload]

    def named(self, name: str) -> Service[Any]:
        """The declaration, as errors call it."""
        return self.declaration.replace(where=f"{self.module}.{name}.")

    def _run(self, request: pytest.FixtureRequest, needed: Mapping[str, object]) -> Iterator[Executor]:
        name = request.fixturename or "service"
        declaration = self.named(name)
        if PRESENT not in request.config.stash:
            problem = "a service fixture needs caseexec's plugin, which is turned off"
            raise DeclarationError(f"{self.module}.{name}", f"{problem}: run pytest with -p caseexec.pytest_plugin")
        skip_if_missing({name: declaration})
        others, keys = self._others(declaration, needed)
        by = there.by if (there := existing(declaration, name)) else ""
        module = request.module.__name__ if self.scope == "module" else ""
        self.keys[name] = Key(declaration, module, by, keys)
        launch, moment = Launch(declaration, self.module, name), request.config.stash[PRESENT].moment
        if self.scope in ("module", "session"):
            yield from self._shared(name, share(self.keys[name], launch), others, moment)
            return
        launch.start(others)
        self.running[name] = Watch(launch, moment)
        try:
            yield self.running[name].executor
        finally:
            self.running.pop(name).end()

    def _shared(self, name: str, shared: Shared, others: Mapping[str, str], moment: str) -> Iterator[Executor]:
        shared.holders += 1
        try:
            self.running[name] = shared.start(others, moment)
            yield self.running[name].executor
        finally:  # It ends with the module, or with the run.
            shared.holders -= 1
            self.running.pop(name, None)

    def _others(
        self, declaration: Service[Any], needed: Mapping[str, object]
    ) -> tuple[dict[str, str], tuple[tuple[str, Key], ...]]:
        """What the placeholders of others stand for, and whom those are shared with."""
        values: dict[str, str] = {}
        keys: list[tuple[str, Key]] = []
        for other, option in sorted(self.needs.items()):
            found = next(_running_as(needed[other]), None)
            if found is None:
                problem = f"it names {other!r}, but that fixture gives {needed[other]!r}, which is no running service"
                raise DeclarationError(declaration.place(option), problem)
            theirs, key = found
            values.update(theirs.offered(other, cast("Executor", needed[other])))
            keys.append((other, key))
        return values, tuple(keys)


_made: WeakSet[ServiceFixture] = WeakSet()


def _running_as(value: object) -> Iterator[tuple[Service[Any], Key]]:
    """Of what a fixture gives, the declaration that it runs of."""
    for fixture in _made:
        for name, watch in fixture.running.items():
            if watch.executor is value:
                yield fixture.declaration, fixture.keys[name]


def _needs(declaration: Service[Any], place: str) -> dict[str, str]:
    """The fixtures that a declaration names, and for each an option that does so."""
    for option, name in declaration.of_class():
        problem = f"{{{name}}} is known to a test class, and a fixture belongs to none: declare the service there"
        raise DeclarationError(f"{place}.{option}", problem)
    named = [(option, name.partition(".")[0]) for option, name in declaration.placeholders() if "." in name]
    for reference in declaration.after:
        if not isinstance(reference, str):
            problem = "a fixture is named by its name, as in after=('redis',), and not by its declaration"
            raise DeclarationError(f"{place}.after", problem)
        named.append(("after", reference))
    for option, name in named:
        if not name.isidentifier() or iskeyword(name) or name == "request":
            raise DeclarationError(f"{place}.{option}", f"it names {name!r}, which can't be a service fixture's name")
    return {name: option for option, name in named}


def marked(function: object) -> ServiceFixture | None:
    """What a function is the fixture of, when it is one of ours."""
    return getattr(function, _MARK, None)


def used_by(item: pytest.Item) -> dict[str, ServiceFixture]:
    """The service fixtures that a test uses, itself or through others."""
    found: dict[str, ServiceFixture] = {}
    for name, definitions in _definitions(item).items():
        for definition in reversed(definitions):
            fixture = marked(definition.func)
            if fixture is not None:
                found[name] = fixture
            if fixture is not None or name not in definition.argnames:  # Else it overrides one that it uses.
                break
    return found


def _definitions(item: pytest.Item) -> Mapping[str, Any]:
    return getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})


def plan_of(item: pytest.Item, used: Mapping[str, ServiceFixture]) -> Plan:
    """Who needs whom among the service fixtures of a test.

    :raises DeclarationError: one that is needed is not there, or can't be.
    """
    for name, fixture in used.items():
        for other, option in fixture.needs.items():
            if other not in used:
                raise DeclarationError(fixture.named(name).place(option), _not_there(item, other))
    # Their scopes are pytest's affair.
    return Plan.of({name: fixture.named(name).replace(scope="session") for name, fixture in used.items()})


def _not_there(item: pytest.Item, name: str) -> str:
    if name in _definitions(item):
        return f"it names {name!r}, but that fixture was not made by service_fixture()"
    there = sorted({known for one in item.session.items for known in used_by(one)})
    known = f"(there are {', '.join(there)}){nearest(name, there)}"
    return f"it names {name!r}, but there is no such service fixture {known}"
