"""The running services of a plan, whoever has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from caseexec.errors import add_note
from caseexec.executors import Executor
from caseexec.scopes.launch import Launch
from caseexec.scopes.together import in_order
from caseexec.scopes.watch import Watch
from caseexec.scopes.watches import Told, Watches
from caseexec.service import Plan

__all__ = ["Services", "stop_one"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Services:
    """The services of a plan, from their start to their end.

    :param label: what errors call whoever has them (``tests.shop.ShopTests``).
    :param nameless: the one that is simply "the service" there.
    :param moment: what is going on when they are started, for errors (``ShopTests.setUpClass``).
    """

    def __init__(self, plan: Plan, label: str, nameless: str = "", moment: str = "the start") -> None:
        self.plan = plan
        self._label = label
        self._nameless = nameless
        self._moment = moment
        self._own: dict[str, Launch] = {}
        self._watches = Watches()

    def start(self) -> None:
        """Start them all, side by side where they do not need each other, and wait until they are ready.

        :raises Exception: one could not be started; the notes tell of others. None runs then.
        """
        self._start(self.plan.services)

    def stop(self) -> None:
        """Stop them, each after those that need it.

        :raises Exception: one did not end well, or had ended before; the notes tell of others.
        """
        self._end(self._own, stop_one)

    def discard(self) -> list[tuple[Launch, list[int]]]:
        """Stop what is left without a word: what was alive, and its processes."""
        left: list[tuple[Launch, list[int]]] = []
        try:
            self._end(self._own, lambda launch, _: left.append((launch, launch.discard())))
        finally:
            self._watches.clear()
        return [(launch, pids) for launch, pids in left if pids]

    def executors(self) -> dict[str, Executor]:
        """Those that run, by their names, each after those that it needs."""
        return {name: self._watches[name].executor for name in self.plan.services if name in self._watches}

    def offered(self) -> dict[str, str]:
        """What the placeholders stand for that name those which run."""
        return self._offered(self.executors())

    def keep_logs(self) -> list[str]:
        """Let the logs stay that are not empty; their paths."""
        for watch in self._watches.values():
            watch.launch.keep_log()
        return [str(watch.executor.log_path) for watch in self._watches.values() if watch.launch.has_log()]

    def _offered(self, names: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names:
            found.update(self.plan.services[name].offered(name, self._watches[name].executor))
        return found

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
        others = self._others(name)
        self._own[name] = self._launch(name)
        self._own[name].start(others)
        self._watches[name] = Watch(self._own[name], self._moment)

    def _others(self, name: str) -> Mapping[str, str]:
        """What the placeholders stand for that are not of the service itself."""
        return self._offered(self.plan.needs[name])

    def _launch(self, name: str) -> Launch:
        return Launch(self.plan.services[name], self._label, "" if name == self._nameless else name)

    def _launched(self, name: str) -> Launch | None:
        return self._own.get(name)

    def _cancel(self, name: str) -> None:
        launch = self._launched(name)
        if launch is not None:
            launch.cancel()

    def _end(self, names: Iterable[str], how: Callable[[Launch, Watch | None], object]) -> None:
        """End some that are not shared, each after those that need it."""
        chosen = [name for name in names if name in self._own]
        needs = self.plan.only(chosen)
        needed_by = {name: [other for other in chosen if name in needs[other]] for name in chosen}
        in_order(needed_by, lambda name: how(self._own.pop(name), self._watches.pop(name, None)))

    def _words(self, when: str) -> Told:
        return self._watches.told(self.plan.services, when)


def stop_one(launch: Launch, watch: Watch | None) -> None:
    """Stop one of them; raises as :meth:`Services.stop`."""
    if watch is None:  # Its start was interrupted.
        launch.stop()
    else:
        watch.end()
