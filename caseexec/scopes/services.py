"""The running services of one test class."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable

from caseexec.errors import ServiceNotStarted, ServiceUnavailable, add_note
from caseexec.executors import Executor
from caseexec.scopes.launch import Launch
from caseexec.scopes.outside import existing, skip_if_missing
from caseexec.scopes.shared import Key, Shared, class_begins, class_ends, share
from caseexec.scopes.together import in_order
from caseexec.scopes.watch import Watch
from caseexec.scopes.watches import Told, Watches
from caseexec.service import Plan

__all__ = ["ClassServices"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class ClassServices:
    """The services of one test class, from its set-up to its end.

    :param case: the test class.
    :param label: what errors call it (``tests.shop.ShopTests``).
    :param nameless: the one that is simply "the service" of the class.
    :ivar used: whether a test was begun.
    :ivar skipped: whether none will be, as the class's set-up has skipped them.
    """

    def __init__(self, plan: Plan, case: type, label: str, nameless: str = "") -> None:
        self.plan = plan
        self.used = self.skipped = False
        self._case = case
        self._label = label
        self._nameless = nameless
        self._short = case.__qualname__.rpartition("<locals>.")[2]
        self._own: dict[str, Launch] = {}
        self._shared: dict[str, Shared] = {}
        self._watches = Watches()
        self._problem: tuple[str, str] | None = None
        self._in_test = False

    # -- the class -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all that is not for each test by itself, or find it running.

        :raises unittest.SkipTest: a program is missing, of a service that is declared so.
        :raises Exception: one could not be started; the notes tell of others. Those of the class are stopped then.
        """
        skip_if_missing(self.plan.services)
        class_begins(self._case)
        self._start(name for name, service in self.plan.services.items() if service.scope != "test")

    def stop(self) -> None:
        """Stop those of the class, and those of the module when this was its last class.

        :raises Exception: one did not end well, or had ended before; the notes tell of others.
        """
        try:
            self._end(self._own, _stop)
        finally:
            class_ends(self._case)

    def discard(self) -> list[tuple[Launch, list[int]]]:
        """Stop what is left of the class without a word: what was alive, and its processes."""
        left: list[tuple[Launch, list[int]]] = []
        try:
            self._end(self._own, lambda launch, _: left.append((launch, launch.discard())))
        finally:
            self._watches.clear()
            class_ends(self._case)
        return [(launch, pids) for launch, pids in left if pids]

    def note_set_up(self, error: BaseException) -> None:
        """Have an error of the class's set-up tell what they wrote until now; a skip is none."""
        if isinstance(error, unittest.SkipTest):
            self.skipped = True
            return
        words = self._words(f"during {self._short}.setUpClass")
        if words:
            add_note(error, words)

    def _start(self, names: Iterable[str]) -> None:
        chosen = list(names)
        try:
            in_order(self.plan.only(chosen), self._start_one, self._cancel)
        except BaseException as error:
            if self._watches.any_died():  # That is why, most likely.
                add_note(error, self._words("until then"))
            self._end(chosen, lambda launch, _: launch.discard())
            raise

    def _start_one(self, name: str) -> None:
        needed = self.plan.needs[name]
        others: dict[str, str] = {}
        for other in needed:
            others.update(self.plan.services[other].offered(other, self._watches[other].executor))
        moment = f"{self._short}.setUpClass"
        if self.plan.services[name].scope in ("module", "session"):
            self._shared[name] = share(self._key(name), self._launch(name))
            self._watches[name] = self._shared[name].start(others, moment)
        else:
            self._own[name] = self._launch(name)
            self._own[name].start(others)
            self._watches[name] = Watch(self._own[name], moment)

    def _launch(self, name: str) -> Launch:
        return Launch(self.plan.services[name], self._label, "" if name == self._nameless else name)

    def _key(self, name: str) -> Key:
        service = self.plan.services[name]
        module = self._case.__module__ if service.scope == "module" else ""
        by = there.by if (there := existing(service, "service" if name == self._nameless else name)) else ""
        return Key(service, module, by, tuple((other, self._key(other)) for other in sorted(self.plan.needs[name])))

    def _cancel(self, name: str) -> None:
        launch = self._shared[name].launch if name in self._shared else self._own.get(name)
        if launch is not None:
            launch.cancel()

    def _end(self, names: Iterable[str], how: Callable[[Launch, Watch | None], object]) -> None:
        """End some that are the class's own, each after those that need it."""
        chosen = [name for name in names if name in self._own]
        needs = self.plan.only(chosen)
        needed_by = {name: [other for other in chosen if name in needs[other]] for name in chosen}
        in_order(needed_by, lambda name: how(self._own.pop(name), self._watches.pop(name, None)))

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
        self._end(self._for_each_test(), _stop)

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

    def _words(self, when: str) -> Told:
        return self._watches.told(self.plan.services, when)

    def keep_logs(self) -> list[str]:
        """Let the logs stay that are not empty; their paths."""
        for watch in self._watches.values():
            watch.launch.keep_log()
        return [str(watch.executor.log_path) for watch in self._watches.values() if watch.launch.has_log()]

    def executor(self, name: str) -> Executor:
        """The running service of that name.

        :raises ServiceNotStarted: it does not run now.
        """
        watch = self._watches.get(name)
        if watch is None:
            raise ServiceNotStarted(f"{self._label}.{name}", each_test=self.plan.services[name].scope == "test")
        return watch.executor


def _stop(launch: Launch, watch: Watch | None) -> None:
    if watch is None:  # Its start was interrupted.
        launch.stop()
    else:
        watch.end()
