"""What is done for the tests of a session in which services are used."""

from __future__ import annotations

import unittest
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from caseexec.errors import (
    DeclarationError,
    ExecutorError,
    ServiceDied,
    ServiceNotStarted,
    ServiceUnavailable,
    text_of,
)
from caseexec.mixins import ServicesMixin
from caseexec.mixins.results import lost_connection, without_frames
from caseexec.pytest_plugin.fixtures import PRESENT, Present, ServiceFixture, marked, plan_of, used_by
from caseexec.pytest_plugin.summary import programs
from caseexec.scopes import Told, Watches, end_modules, end_run, keeping
from caseexec.service import Plan

__all__ = ["ServicesPlugin"]

# Its frames are left out of the traceback of a failed test.
__tracebackhide__ = True

_SECTIONS = pytest.StashKey[list[tuple[str, str]]]()
# A session within a test of another one (pytester) must not end what that one shares.
_outermost: list[pytest.Session] = []


class ServicesPlugin:
    """Ends what is shared when it should end, has the service fixtures ready, and tells of all services."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._config = session.config
        self._config.stash[PRESENT] = Present()
        _outermost.append(session)
        self._before = replace(keeping)
        keeping.everything = bool(self._config.getoption("caseexec_keep"))
        keeping.log_directory = self._config.getoption("caseexec_log_dir") or keeping.log_directory
        keeping.kept = []
        self._plans: dict[tuple[tuple[str, ServiceFixture], ...], Plan] = {}
        self._postponed: list[Callable[[], object]] = []
        if self._config.getoption("usepdb", False):
            ServicesMixin._postponed = self._postponed

    # -- what there is to tell -----------------------------------------------------------------------------------------

    def pytest_report_collectionfinish(self, items: Sequence[pytest.Item]) -> list[str]:
        """Name the programs. Not in the header: only what was collected tells which services are used."""
        return self._programs(items) if self._config.getoption("verbose") >= 0 else []

    def _programs(self, items: Sequence[pytest.Item]) -> list[str]:
        found = programs(items)
        return [f"services: {', '.join(found)}"] if found else []

    def told(self) -> dict[str, Any]:
        """What is to be told at the end."""
        worker = getattr(self._config, "workerinput", {}).get("workerid", "")
        lines = self._programs(self._session.items) if worker else []  # A worker's header is shown to nobody.
        return {"services": lines, "kept": [(worker, who, path) for who, path in keeping.kept]}

    # -- when what is shared ends --------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        """End what is shared behind its last test, when all fixtures that may use it are gone."""
        self._config.stash[PRESENT] = Present()  # Nobody is to ask what is about to end.
        with ExitStack() as over:
            if _outermost[0] is self._session:
                over.callback(_end_shared, item, nextitem)
            over.callback(self._end_postponed)
            return (yield)

    def _end_postponed(self) -> None:
        with ExitStack() as over:
            while self._postponed:  # The first that came is called first.
                over.callback(self._postponed.pop())

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End what is left after an interrupt."""
        if _outermost[0] is session:
            try:
                end_run()
            except Exception as error:  # There is no test left that it could be an error of.
                warnings.warn(f"{type(error).__name__}: {text_of(error)}", RuntimeWarning, stacklevel=2)
                session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["caseexec"] = self.told()

    def pytest_unconfigure(self) -> None:
        """Leave no trace in a process that goes on."""
        _outermost.remove(self._session)
        vars(keeping).update(vars(self._before))
        if ServicesMixin._postponed is self._postponed:
            ServicesMixin._postponed = None

    # -- service fixtures ----------------------------------------------------------------------------------------------

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Have those that run ready for a test, before any other fixture can put something into them."""
        used = used_by(item)
        self._config.stash[PRESENT] = present = Present(item.nodeid)
        if not used:
            return
        present.plan = self._plan_of(item, used)
        for name, fixture in used.items():
            if name in fixture.problems:
                raise ServiceUnavailable(*fixture.problems[name])
        running = {name: fixture.running[name] for name, fixture in used.items() if name in fixture.running}
        watches = Watches(running)
        watches.meet(present.moment)
        watches.begin(present.moment, present.plan)
        present.watches = watches

    def _plan_of(self, item: pytest.Item, used: Mapping[str, ServiceFixture]) -> Plan:
        key = tuple(used.items())  # Many tests use the same ones.
        try:
            if key not in self._plans:
                self._plans[key] = plan_of(item, used)
            return self._plans[key]
        except DeclarationError as error:
            raise error.with_traceback(None) from None  # Its text says where to look.

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Have one ready that has just been started for a test."""
        fixture, name = marked(fixturedef.func), request.fixturename or ""
        if fixture is None:
            return (yield)
        present = self._config.stash[PRESENT]
        try:
            value = yield
        except Exception as error:
            _note_problem(fixture, name, error, present.moment)
            raise
        # Here and not in the fixture, as pytest would keep an error of that for all tests.
        watch = fixture.running.get(name)  # None: pytest only makes a plan.
        if watch is not None and watch not in present.watches.values():  # Else two fixtures share it.
            if watch.must_start():
                watch.start(present.moment)
            watch.begin(present.moment)
            present.watches[name] = watch
        return value

    # -- reports -------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(specname="pytest_runtest_makereport")
    def pytest_take_output(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Take what services wrote from the notes of an error, just before pytest makes a report of it."""
        if call.excinfo is None or isinstance(call.excinfo.value, pytest.skip.Exception):
            return
        error = call.excinfo.value
        if isinstance(error, (ServiceDied, ServiceUnavailable, ServiceNotStarted)):
            call.excinfo = pytest.ExceptionInfo.from_exc_info(without_frames(error))
            return
        notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, Told)]
        for note in notes:
            error.__notes__.remove(note)
        notes.append(self._fixtures_told(error))
        item.stash[_SECTIONS] = [part for note in notes for part in note.parts]

    def _fixtures_told(self, error: BaseException) -> Told:
        present = self._config.stash[PRESENT]
        if lost_connection(error):
            present.watches.await_death()
        # Of those that a test asks for only while it runs, the plan does not know.
        return present.watches.told([*present.plan.services, *present.watches], "during this test")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show what they wrote as sections of their own, and a line for the summary where pytest finds none."""
        report = yield
        sections = item.stash.get(_SECTIONS, [])
        item.stash[_SECTIONS] = []
        report.sections += [(f"Captured output of {title}", text) for title, text in sections]
        if call.excinfo is not None:
            _name(report, call.excinfo)
        return report


def _end_shared(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None:
        end_run()
    elif item.getparent(pytest.Module) is not nextitem.getparent(pytest.Module):
        end_modules()


def _note_problem(fixture: ServiceFixture, name: str, error: Exception, moment: str) -> None:
    """Have pytest's other tests that need a fixture not tell all over again why it could not be set up."""
    if isinstance(error, ServiceUnavailable):
        fixture.problems[name] = (error.problem, error.told_by)
    elif isinstance(error, ServiceDied):
        fixture.problems[name] = (error.headline(), moment)
    elif not isinstance(error, unittest.SkipTest):
        fixture.problems[name] = (f"{name} could not be started ({type(error).__name__})", moment)


def _name(report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Give the summary the text of an error of ours: it has none where all frames are hidden."""
    told: Any = report.longrepr
    is_ours = isinstance(excinfo.value, (DeclarationError, ExecutorError, ServiceUnavailable, ServiceNotStarted))
    if not is_ours or not hasattr(told, "chain"):  # --tb=native or --tb=line have no such parts.
        return
    *causes, (traceback, crash, how) = told.chain
    traceback.extraline = None  # It would say that all frames are hidden.
    if crash is None:
        from _pytest._code.code import ReprFileLocation

        path, line, _ = report.location
        told.reprcrash = ReprFileLocation(path, (line or 0) + 1, excinfo.exconly(tryshort=True))
        told.chain = [*causes, (traceback, told.reprcrash, how)]  # That is what travels from a worker.
