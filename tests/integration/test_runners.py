"""One suite of thirty classes under each test runner: what it counts, what it tells, and that nothing remains.

The suite is in :mod:`tests.helpers.thirty`. What a runner does otherwise than unittest stands in its class here, and for
users in ``docs/how-to/runners.rst``. A runner that is not installed skips its tests; with ``CASEEXEC_REQUIRE=1`` they fail.
"""

import re
import sys
import unittest

from tests.helpers import thirty
from tests.helpers.faults import FaultyRun
from tests.helpers.leaks import soon
from tests.helpers.runners import RUNNERS
from tests.integration.servers import missing
from tests.integration.test_faults import LIMIT, FaultCase

# What the services of failing tests wrote, and how set-ups and tear-downs failed.
TOLD = (
    "was told of an error\n",
    "was told of a failure\n",
    "was told of a subtest\n",
    "was told of a set-up\n",
    "was told of the set-up of a class\n",
    "was killed by SIGKILL during DyingTests.test_it\n",
    "NeverReadyTests.never timed out after 0.3 seconds: it was not ready\n",
    "ExitsTests exited with status 3 after ",
    "there is no program 'no-such-program-anywhere'\n",
    "WithoutSuperTests.setUpClass does not call super().setUpClass()",
)
TOLD_ASYNCHRONOUSLY = "was told of an asynchronous failure\n"


class RunnerCase(FaultCase):
    """Runs the suite under one runner.

    :cvar asynchronous: whether it can run ``IsolatedAsyncioTestCase``.
    """

    asynchronous = True

    def setUp(self) -> None:
        super().setUp()
        if reason := RUNNERS[self.runner].missing():
            raise missing(reason)

    def run_suite(self, logs_may_stay: bool = False) -> FaultyRun:
        modules = thirty.modules()
        if not self.asynchronous:
            del modules["test_asynchronous"]
        run = self.begin(modules)
        run.logs_may_stay = logs_may_stay
        self.assertTrue(soon(lambda: run.is_over(LIMIT), 60), run.story())
        return run

    def assert_counted(self, run: FaultyRun, status: int, summary: str) -> None:
        self.assertEqual(run.process.returncode, status, run.story())
        self.assertRegex(run.output(), re.compile(summary, re.MULTILINE), run.story())


class Fixtures:
    """For a runner that runs class fixtures.

    :cvar status: its exit status.
    :cvar summary: what it counts in the end.
    :cvar untold: what it does not tell.
    """

    status = 1
    summary = ""
    untold: tuple[str, ...] = ()

    def test_the_suite(self) -> None:
        run = self.run_suite(logs_may_stay=bool(self.untold))
        self.assert_counted(run, self.status, self.summary)
        self.assert_told(run)
        self.assert_passed(run)
        self.assertEqual(run.left, [], run.story())

    def assert_told(self, run: FaultyRun) -> None:
        wanted = (*TOLD, TOLD_ASYNCHRONOUSLY) if self.asynchronous else TOLD
        told = "\n".join(line.strip() for line in run.output().splitlines()) + "\n"
        self.assertEqual([words for words in wanted if words not in told], [*self.untold], run.story())
        self.assertNotIn("was told of nothing", told, "a test that passes tells nothing")

    def assert_passed(self, run: FaultyRun) -> None:
        passed = run.noted("passed")
        self.assertEqual((len(passed), len(set(passed))), (23, 23) if self.asynchronous else (20, 20), run.story())
        self.assertLessEqual(len(set(run.noted("runs"))), RUNNERS[self.runner].workers)
        for scope in ("session", "module"):
            # Each process has one of its own, and all its classes the same.
            where = set(run.noted(scope))
            processes, ports = zip(*map(str.split, where), strict=True)
            self.assertEqual((len(set(processes)), len(set(ports))), (len(where), len(where)), where)


class Interrupts:
    """For a runner that is hit while each of its workers runs a test."""

    # Whether the end of the run itself is noticed by its workers' services.
    ends_with_parent = True

    def begin_tests(self, fault: str) -> FaultyRun:
        module = f"""
            from tests.helpers import faulty

            class {{name}}(faulty.Struck):
                place, fault = "a_test", {fault!r}
        """
        run = self.begin({f"test_{name.lower()}": module.format(name=name) for name in ("One", "Two")})
        run.await_place()
        return run

    def test_nothing_remains_after_ctrl_c(self) -> None:
        self.assert_nothing_remains_after("ctrl_c", self.begin_tests("ctrl_c"))

    def test_no_service_remains_after_the_run_was_killed(self) -> None:
        run = self.begin_tests("sigkill")
        run.hit("sigkill")
        if not self.ends_with_parent:
            run.go_on()
        # A worker may live on; that is its runner's business.
        gone = soon(lambda: not (run.services() or any(map(run.answers, run.ports())) or run.files()), LIMIT)
        self.assertTrue(gone, [run.services(), run.ports(), run.files(), run.story()])
        self.assertEqual(run.harmed(), [])


class Guard:
    """For a runner that runs no class fixtures: each test that would need a service is an error that says so."""

    status = 1
    summary = ""

    def test_the_suite(self) -> None:
        run = self.run_suite()
        self.assert_counted(run, self.status, self.summary)
        self.assertEqual((run.noted("passed"), run.noted("runs"), run.left), ([], [], []), run.story())
        told = re.findall(r"^caseexec.errors.ServiceNotStarted: (.*)", run.output(), re.MULTILINE)
        self.assertEqual({words.partition(" because ")[2].partition("(")[0] for words in told}, {
            "the test runner did not call setUpClass "
        })  # fmt: skip


# The tests that a decorator skips are started, and so counted, but in Python 3.12.1.
STARTED = 0 if sys.version_info[:3] == (3, 12, 1) else 3
COUNTED = r"failures=3, errors=10, skipped=6, expected failures=1, unexpected successes=1"


class UnittestTests(Fixtures, RunnerCase):
    runner = "unittest"
    summary = rf"^Ran {33 + STARTED} tests in .*\n\nFAILED \({COUNTED}\)$"


class UnittestFailfastTests(RunnerCase):
    runner = "unittest -c -f"

    def test_the_suite(self) -> None:
        run = self.run_suite()
        self.assert_counted(run, 1, r"^Ran 1 test in .*\n\nFAILED \(failures=1\)$")
        self.assertEqual((run.output().count(TOLD_ASYNCHRONOUSLY), run.left), (1, []), run.story())


class PytestTests(Fixtures, RunnerCase):
    # A failed set-up is counted for each test of its class, and the guard's errors and other errors of tests as failures.
    runner = "pytest"
    summary = r"^8 failed, 24 passed, 8 skipped, 1 xfailed, 10 errors, 2 subtests passed in "


class XdistTests(Fixtures, RunnerCase):
    runner = "pytest -n 2"
    summary = PytestTests.summary


class DjangoTests(Fixtures, Interrupts, RunnerCase):
    runner = "django"
    summary = UnittestTests.summary


class DjangoParallelTests(Fixtures, Interrupts, RunnerCase):
    runner = "django --parallel 2"
    asynchronous = False
    summary = rf"^Ran {29 + STARTED} tests in .*\n\nFAILED \({COUNTED.replace('failures=3', 'failures=2', 1)}\)$"


class Nose2Tests(Fixtures, Interrupts, RunnerCase):
    runner = "nose2"
    summary = UnittestTests.summary


class Nose2MultiprocessTests(Fixtures, Interrupts, RunnerCase):
    # It calls tearDownClass twice, and so has one more error of it.
    runner = "nose2 -N 2"
    summary = UnittestTests.summary.replace("errors=10", "errors=11")


class TesttoolsTests(Fixtures, Interrupts, RunnerCase):
    # Errors and unexpected successes are counted as failures.
    runner = "testtools"
    summary = rf"^Ran {33 + STARTED} tests in .*\nFAILED \(failures=14\)$"


class StestrTests(Fixtures, Interrupts, RunnerCase):
    runner = "stestr"
    summary = (
        r"^Ran: 44 tests in .*\n - Passed: 23\n - Skipped: 6\n - Expected Fail: 1\n - Unexpected Success: 1\n"
        r" - Failed: 13$"
    )
    # They are independent programs, and end when their tests have.
    ends_with_parent = False


class GreenTests(Fixtures, Interrupts, RunnerCase):
    # Of a set-up or tear-down of a class it tells only when that is the last of its module.
    runner = "green"
    summary = r"^FAILED \(errors=5, expected_failures=1, failures=3, passes=23, skips=8, unexpected_successes=1\)$"
    untold = TOLD[4:9]

    @unittest.skipUnless(STARTED, "in Python 3.12.1 green breaks off at a skipped test")
    def test_the_suite(self) -> None:
        super().test_the_suite()


class UnittestParallelTests(Fixtures, Interrupts, RunnerCase):
    # Its exit status is the number of failures, errors and unexpected successes.
    runner = "unittest-parallel module"
    asynchronous = False
    status = 13
    summary = DjangoParallelTests.summary


class UnittestParallelClassTests(Fixtures, RunnerCase):
    runner = "unittest-parallel class"
    asynchronous = False
    status = 13
    summary = DjangoParallelTests.summary


class UnittestParallelTestTests(Guard, RunnerCase):
    runner = "unittest-parallel test"
    asynchronous = False
    status = 41
    summary = rf"^Ran {41 + STARTED} tests in .*\n\nFAILED \(errors=41, skipped=3\)$"


class TrialTests(Guard, RunnerCase):
    runner = "trial"
    summary = rf"^Ran {45 + STARTED} tests in .*\n\nFAILED \(skips=3, errors=45\)$"


class ZopeTests(Guard, RunnerCase):
    runner = "zope.testrunner"
    summary = r"^  Ran 48 tests with 0 failures, 45 errors and 3 skipped in "
