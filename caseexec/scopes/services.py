"""The running services of one test class."""

from __future__ import annotations

import unittest
from collections.abc import Mapping

from caseexec.errors import ServiceNotStarted, ServiceUnavailable, add_note
from caseexec.executors import Executor
from caseexec.scopes.launch import Launch
from caseexec.scopes.outside import existing, skip_if_missing
from caseexec.scopes.several import Services, stop_one
from caseexec.scopes.shared import Key, Shared, class_begins, class_ends, share
from caseexec.service import Plan

__all__ = ["ClassServices"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class ClassServices(Services):
    """The services of one test class, from its set-up to its end.

    :param case: the test class.
    :param label: what errors call it (``tests.shop.ShopTests``).
    :param nameless: the one that is simply "the service" of the class.
    :ivar used: whether a test was begun.
    :ivar skipped: whether none will be, as the class's set-up has skipped them.
    """

    def __init__(self, plan: Plan, case: type, label: str, nameless: str = "") -> None:
        self._short = case.__qualname__.rpartition("<locals>.")[2]
        super().__init__(plan, label, nameless, moment=f"{self._short}.setUpClass")
        self.used = self.skipped = False
        self._case = case
        self._shared: dict[str, Shared] = {}
        self._problem: tuple[str, str] | None = None
        self._in_test = False
        self._of_class: Mapping[str, str] | None = None

    # -- the class -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all that is not for each test by itself, or find it running; but for those that must be late.

        :raises unittest.SkipTest: a program is missing, of a service that is declared so.
        :raises Exception: one could not be started; the notes tell of others. Those of the class are stopped then.
        """
        skip_if_missing(self.plan.services)
        class_begins(self._case)
        self._start(self._for_all_tests() - self.plan.late)

    def start_late(self, of_class: Mapping[str, str]) -> None:
        """Start those that need what only the class knows, when its own set-up is done.

        :param of_class: what the placeholders stand for that the class knows.
        :raises Exception: as :meth:`start`.
        """
        self._of_class = of_class
        self._start(self._for_all_tests() & self.plan.late)

    def stop_late(self) -> None:
        """Stop these; raises as :meth:`stop`."""
        self._end(self.plan.late, stop_one)

    def stop(self) -> None:
        """Stop those of the class, and those of the module when this was its last class.

        :raises Exception: one did not end well, or had ended before; the notes tell of others.
        """
        try:
            super().stop()
        finally:
            class_ends(self._case)

    def discard(self) -> list[tuple[Launch, list[int]]]:
        """Stop what is left of the class without a word: what was alive, and its processes."""
        try:
            return super().discard()
        finally:
            class_ends(self._case)

    def note_set_up(self, error: BaseException) -> None:
        """Have an error of the class's set-up tell what they wrote until now; a skip is none."""
        if isinstance(error, unittest.SkipTest):
            self.skipped = True
            return
        words = self._words(f"during {self._moment}")
        if words:
            add_note(error, words)

    def _start_one(self, name: str) -> None:
        if self.plan.services[name].scope in ("module", "session"):
            self._shared[name] = share(self._key(name), self._launch(name))
            self._watches[name] = self._shared[name].start(self._others(name), self._moment)
        else:
            super()._start_one(name)

    def _others(self, name: str) -> Mapping[str, str]:
        return {**(self._of_class or {}), **super()._others(name)}

    def _launched(self, name: str) -> Launch | None:
        return self._shared[name].launch if name in self._shared else super()._launched(name)

    def _key(self, name: str) -> Key:
        service = self.plan.services[name]
        module = self._case.__module__ if service.scope == "module" else ""
        by = there.by if (there := existing(service, "service" if name == self._nameless else name)) else ""
        return Key(service, module, by, tuple((other, self._key(other)) for other in sorted(self.plan.needs[name])))

    def _for_all_tests(self) -> set[str]:
        return {name for name, service in self.plan.services.items() if service.scope != "test"}

    def _for_each_test(self) -> list[str]:
        return [name for name, service in self.plan.services.items() if service.scope == "test"]

    # -- each test -----------------------------------------------------------------------------------------------------

    def begin_test(self, method: str) -> None:
        """Have everything ready for a test.

        :raises ServiceDied: a service has ended by itself.
        :raises ServiceUnavailable: one has, of which an earlier test has told all.
        :raises Exception: one could not be started, or reset.
        """
        self.used = True
        test = f"{self._short}.{method}"
        self._watches.meet(test)
        self._start_for_test(test)
        self._watches.begin(test, self.plan)
        self._in_test = True

    def _start_for_test(self, test: str) -> None:
        if self._problem:
            raise ServiceUnavailable(*self._problem)
        try:
            self._start(self._for_each_test())
        except Exception as error:
            self._problem = f"the services for each test could not be started ({type(error).__name__})", test
            raise

    def end_test(self) -> None:
        """Stop those that are for each test by itself.

        :raises Exception: as :meth:`stop`.
        """
        self._end(self._for_each_test(), stop_one)

    def discard_test(self) -> None:
        """Be done with a test, however it ended."""
        self._in_test = False
        self._end(self._for_each_test(), lambda launch, _: launch.discard())

    def words(self, lost: bool = False) -> str:
        """What they wrote since the present test began; empty when there are none, or it has not begun.

        :param lost: a connection was, and whoever had its other end may be about to die.
        """
        if lost and self._in_test:
            self._watches.await_death()
        return self._words("during this test") if self._in_test else ""

    def executor(self, name: str) -> Executor:
        """The running service of that name.

        :raises ServiceNotStarted: it does not run now.
        """
        watch = self._watches.get(name)
        if watch is None:
            late = name in self.plan.late and self._of_class is None
            each_test = self.plan.services[name].scope == "test"
            raise ServiceNotStarted(f"{self._label}.{name}", each_test=each_test, late=late)
        return watch.executor
