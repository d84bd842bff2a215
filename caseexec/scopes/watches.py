"""The running services that a test uses together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from caseexec.deadline import Deadline
from caseexec.scopes.together import in_order
from caseexec.scopes.watch import Watch
from caseexec.service import Plan

__all__ = ["Told", "Watches"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# The connections of a process that crashes are closed a moment before it is seen to have ended.
_DYING = 0.05


class Told(str):
    """What services wrote, as a note for an error.

    :ivar parts: the same, a title and the text for each service, for a runner that shows it apart from the error.
    """

    parts: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, watches: Iterable[Watch], when: str) -> Told:
        """What some have written; empty when there are none."""
        told = list(watches)
        lines = [f"What its services wrote {when}:", *(watch.words() for watch in told)]
        made = cls("\n".join(lines) if told else "")
        made.parts = [watch.section() for watch in told]
        return made


class Watches(dict[str, Watch]):
    """Some running services, by what those who use them call them; two names may mean the same one."""

    def each(self, names: Iterable[str]) -> dict[str, Watch]:
        """Each of them, once, in the order of these names."""
        found: dict[str, Watch] = {}
        for name in names:
            if name in self and self[name] not in found.values():
                found[name] = self[name]
        return found

    def meet(self, test: str) -> None:
        """Make sure, before a test, that they are there or can be started again; raises as :meth:`Watch.meet`."""
        for watch in self.values():
            watch.meet(test)

    def begin(self, test: str, plan: Plan) -> None:
        """Start again, before a test, what must be; then reset each.

        :raises Exception: one could not be started, or reset.
        """
        watches = self.each(plan.services)
        again = [name for name, watch in watches.items() if watch.must_start()]
        in_order(plan.only(again), lambda name: watches[name].start(test))
        for watch in watches.values():
            watch.begin(test)

    def any_died(self) -> bool:
        """Whether one has ended by itself."""
        return any(watch.has_died() for watch in self.values())

    def await_death(self) -> None:
        """Wait a moment for one to end, as a connection was lost, and whoever had its other end may be about to."""
        for _ in Deadline(_DYING).turns():
            if self.any_died():
                break

    def told(self, names: Iterable[str], when: str) -> Told:
        """What they wrote since the present test began; of one that was there already that is not known."""
        return Told.of((watch for watch in self.each(names).values() if not watch.executor.existing), when)
