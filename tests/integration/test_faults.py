"""Nothing remains, whatever hits a run, and wherever; and nobody else is harmed.

Each test is a run of its own, of unittest, of ``unittest -c``, of pytest or of ``pytest -n 2``. Its services have
children and daemons. When it has reached a place, it is hit, and two seconds after its end nothing may be left of it.

With ``CASEEXEC_ALL_FAULTS=1`` everything is tried in every place under every runner. Without it, ``unittest -c`` is
spared what has nothing to do with Ctrl-C, ``pytest -n 2`` what its workers do as pytest does, and all but unittest what
kind of service it is.
"""

import os
from collections.abc import Callable, Mapping

from caseexec import cgroup
from tests.helpers.faults import FaultyRun
from tests.helpers.leaks import NothingRemains, soon

ALL = os.environ.get("CASEEXEC_ALL_FAULTS") == "1"
# Seconds after the end of a run in which everything must be gone.
LIMIT = 2.0

PLACES = ("the_wait", "a_test", "tear_down_class")
INTERRUPTS = ("ctrl_c", "ctrl_c_twice")
RAISED = ("sys_exit", "exception", "skip_test")
FAULTS = (*INTERRUPTS, "sigterm", "sigkill", "os_exit", *RAISED)


class FaultCase(NothingRemains):
    """Starts runs, and looks at what they leave."""

    runner = ""
    runs = 0

    def begin(self, modules: str | Mapping[str, str], beside: FaultyRun | None = None, **variables: str) -> FaultyRun:
        self.runs += 1
        run = FaultyRun(self.make_dir(f"run-{self.runs}"), self.runner, modules, beside, **variables)
        self.addCleanup(run.close)
        return run

    def begin_class(self, name: str, body: str = "pass", **variables: str) -> FaultyRun:
        """Start a run of a class of :mod:`tests.helpers.faulty`."""
        module = f"from tests.helpers import faulty\n\n\nclass Case(faulty.{name}):\n    {body}\n"
        return self.begin(module, **variables)

    def reach(self, name: str, **variables: str) -> FaultyRun:
        """Start a run of a class of :mod:`tests.helpers.faulty`, and wait until it is in its place."""
        run = self.begin_class(name, **variables)
        run.await_place()
        return run

    def strike(self, fault: str, *places: str) -> None:
        """Hit runs in places, one in each, all at once."""
        # Where one Ctrl-C is only remembered, the second is the first that interrupts.
        name = "StruckTwice" if fault == "ctrl_c_twice" and self.runner != "unittest -c" else "Struck"
        runs = [self.begin_class(name, f"place, fault = {place!r}, {fault!r}") for place in places]
        for run in runs:
            run.await_place()
        self.assert_nothing_remains_after(fault, *runs)

    def assert_nothing_remains_after(self, fault: str, *runs: FaultyRun) -> None:
        for run in runs:
            run.hit(fault)
        soon(lambda: not [run for run in runs if not run.is_over(LIMIT)], 60)
        for run in runs:
            self.assertTrue(run.ended, run.story())
            self.assertEqual(run.left, [], f"{LIMIT} seconds after the end. {run.story()}")
            self.assertEqual(run.harmed(), [], "somebody else was harmed")


def struck_by(*faults: str, places: tuple[str, ...] = PLACES) -> Callable[[type[FaultCase]], type[FaultCase]]:
    """Give a class a test for each of the faults in each of the places."""

    def add_tests(case: type[FaultCase]) -> type[FaultCase]:
        for place in places:
            for fault in faults:

                def test(self: FaultCase, fault: str = fault, place: str = place) -> None:
                    self.strike(fault, place)

                test.__name__ = f"test_nothing_remains_after_{fault}_in_{place}"
                test.__qualname__ = f"{case.__qualname__}.{test.__name__}"
                setattr(case, test.__name__, test)
        return case

    return add_tests


class Forks:
    """What can happen to a run that has other children than its services."""

    def test_a_forked_child_that_exits_ends_no_service(self) -> None:
        run = self.reach("Forks")
        self.assertEqual(set(run.noted("answers")), {"True"})
        self.assert_nothing_remains_after("sigkill_to_the_workers", run)

    def test_nothing_remains_after_a_pool_was_terminated_whose_workers_have_services(self) -> None:
        run = self.reach("HasPool")
        pools = [int(port) for worker in run.noted("reached") for port in run.noted(f"pool-{worker}")]
        self.assertEqual(len(pools), 2 * len(run.noted("reached")))
        self.assertTrue(soon(lambda: not any(map(run.answers, pools)), LIMIT), "before the end of the run")
        self.assertEqual(set(run.noted("answers")), {"True"}, "its own service is another")
        self.assert_nothing_remains_after("the end", run)

    def test_a_killed_reaper_is_replaced_with_a_warning(self) -> None:
        run = self.reach("LosesReaper")
        for warning in run.noted("warnings"):
            self.assertRegex(warning, r"^\[\('RuntimeWarning', .*reaper.*killed by SIGKILL.*started now")
        reapers = run.noted("reapers")
        self.assertEqual(len(set(reapers) - {"None"}), 2 * len(run.noted("reached")), reapers)
        self.assert_nothing_remains_after("sigkill_to_the_workers", run)


class Scenarios(Forks):
    """What else can happen to a run."""

    def test_nothing_remains_after_the_second_of_two_services_has_failed(self) -> None:
        self.assert_nothing_remains_after("the failure", self.reach("SecondFails"))

    def test_nothing_remains_of_what_forks_faster_than_it_can_be_killed(self) -> None:
        self.assert_nothing_remains_after("sigkill_to_the_workers", self.reach("Breeds"))

    def test_nothing_remains_of_it_without_a_cgroup_either(self) -> None:
        self.assert_nothing_remains_after("sigkill_to_the_workers", self.reach("Breeds", CASEEXEC_CGROUP="0"))

    def test_nothing_remains_of_a_daemon_that_only_its_cgroup_knows(self) -> None:
        if cgroup.parent() is None:
            self.skipTest("no cgroup can be made here")
        self.assert_nothing_remains_after("sigkill_to_the_workers", self.reach("Vanishes"))

    def test_nothing_remains_of_a_daemon_that_only_its_supervisor_knows(self) -> None:
        run = self.reach("VanishesSupervised", CASEEXEC_CGROUP="0")
        self.assert_nothing_remains_after("sigkill_to_the_workers", run)


class TwoRuns:
    """Two runs at a time."""

    MODULE = """
        import itertools
        from unittest import mock
        from caseexec.registry import current_run
        from tests.helpers import faulty

        with mock.patch("secrets.token_hex", side_effect=itertools.repeat("{id}")):
            current_run()

        class Case(faulty.Faulty):
            pass
    """

    def test_a_run_leaves_another_alone_whose_id_contains_its_own(self) -> None:
        one = str(os.getpid())  # Another suite on this machine has other ids.
        for theirs, ours in ((f"9{one}", one), (f"{one}5", one), (one, f"9{one}")):
            with self.subTest(f"{theirs} beside {ours}"):
                other = self.begin(self.MODULE.format(id=theirs))
                other.await_place()
                files = sorted(other.files())
                run = self.begin(self.MODULE.format(id=ours), beside=other)
                run.await_place()
                self.assertEqual((run.noted("runs"), other.noted("runs")), ([ours], [theirs]))
                self.assert_nothing_remains_after("sigkill", run)
                self.assertEqual(other.missing(), [])
                self.assertEqual(sorted(other.files()), files)
                self.assert_nothing_remains_after("sigkill", other)


REST = (Scenarios, TwoRuns) if ALL else ()


# First, as it waits the longest, and others can be at work meanwhile.
@struck_by("ctrl_c", "os_exit", "sigterm_to_the_workers", "sigkill_to_the_workers")
@struck_by(*RAISED, places=PLACES if ALL else ("a_test",))
class XdistTests(Scenarios if ALL else Forks, FaultCase):
    runner = "pytest -n 2"

    # A worker that has lost its controller goes on for five seconds, whatever it does.
    def test_nothing_remains_after_ctrl_c_twice_anywhere(self) -> None:
        self.strike("ctrl_c_twice", *PLACES)

    def test_nothing_remains_after_sigterm_anywhere(self) -> None:
        self.strike("sigterm", *PLACES)

    def test_nothing_remains_after_sigkill_anywhere(self) -> None:
        self.strike("sigkill", *PLACES)


@struck_by(*FAULTS)
class UnittestTests(Scenarios, TwoRuns, FaultCase):
    runner = "unittest"


@struck_by(*(FAULTS if ALL else INTERRUPTS))
class CatchbreakTests(*REST, FaultCase):
    runner = "unittest -c"


@struck_by(*FAULTS)
class PytestTests(*REST, FaultCase):
    runner = "pytest"
