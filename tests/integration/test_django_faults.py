"""Nothing remains of the services of a run of Django's, nor of those of its classes, whatever hits it.

As :mod:`tests.integration.test_faults`, whose places and faults these are; with ``CASEEXEC_ALL_FAULTS=1`` all of them.
"""

import os
import signal

from tests.helpers import django_site  # noqa: F401  without Django there is nothing to do
from tests.helpers.faults import FaultyRun
from tests.helpers.leaks import soon
from tests.helpers.runners import RUNNERS
from tests.integration.servers import missing
from tests.integration.test_faults import ALL, LIMIT, PLACES, FaultCase, struck_by

# Django gives each worker a class.
MODULE = """
    from django.conf import settings
    from tests.helpers import faulty

    class Case(faulty.{name}):
        place, fault = {place!r}, {fault!r}

        def test_one(self):
            self.assertTrue(all(faulty.answers(int(port)) for port in settings.PORTS))
            super().test_one()

    class Other(Case):
        pass
"""


class DjangoFaultCase(FaultCase):
    def setUp(self) -> None:
        super().setUp()
        if reason := RUNNERS[self.runner].missing():
            raise missing(reason)

    def strike(self, fault: str, *places: str) -> None:
        for place in places:
            run = self.begin_in(place, fault)
            run.await_place()
            self.assertGreater(len(run.noted("ports")), 2, run.story())
            if run.runner.workers > 1 and fault in ("sigterm", "sigkill"):
                self.assert_no_service_remains_after(fault, run)
            else:
                self.assert_nothing_remains_after(fault, run)

    def assert_no_service_remains_after(self, fault: str, run: FaultyRun) -> None:
        """The same without the workers: one whose parent was killed lives on, as Django would have it."""
        run.hit(fault)
        gone = soon(lambda: not (run.services() or any(map(run.answers, run.ports())) or run.files()), LIMIT)
        self.assertTrue(gone, [run.services(), run.ports(), run.files(), run.story()])
        self.assertEqual(run.harmed(), [], "somebody else was harmed")

    def begin_in(self, place: str, fault: str) -> FaultyRun:
        return self.begin(MODULE.format(name="Struck", place=place, fault=fault))


@struck_by("ctrl_c_twice", "exception", places=PLACES if ALL else ("a_test",))
@struck_by(*(("ctrl_c", "sigterm", "sigkill", "sys_exit") if ALL else ()))
class SerialTests(DjangoFaultCase):
    runner = "django with services"


@struck_by("ctrl_c", "sigterm", "sigkill", places=PLACES if ALL else ("a_test",))
@struck_by(*(("ctrl_c_twice", "exception") if ALL else ()))
class ParallelTests(DjangoFaultCase):
    runner = "django with services --parallel 2"

    def test_a_worker_that_dies_is_an_error_that_says_so_and_ends_the_run(self) -> None:
        run = self.begin_in("a_test", "")
        run.await_place()
        worker = int(run.noted("reached")[0])
        os.kill(worker, signal.SIGKILL)
        self.assert_nothing_remains_after("the end", run)
        told = rf"RuntimeError: the worker with the pid {worker} was killed by SIGKILL, and its tests are lost: the run was"
        self.assertRegex(run.output(), told)
        self.assertEqual(run.process.returncode, 1)
