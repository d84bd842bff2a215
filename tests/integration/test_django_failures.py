"""A run of Django's that fails tells why, ends with an error, and leaves nothing, wherever it fails."""

import os

from tests.integration.servers import require
from tests.integration.test_django_project import ProjectCase

HEAD = """
import os, signal, unittest
from caseexec import ServicesMixin
from caseexec.servers import Redis
from django.db import connection
from django.test import TestCase
from shop.models import Order

def note(executor):
    with open("pids", "a") as file:
        print(executor.pid, file=file)

class Base(ServicesMixin, TestCase):
    redis = Redis(reset=note)
"""
FAILING = (
    HEAD
    + """
class FailingTests(Base):
    def test_it(self):
        self.assertEqual(Order.objects.count(), 7)

class OtherTests(Base):
    def test_it(self):
        pass
"""
)
NO_TBLIB = "raise ImportError('there is no tblib')\n"


class FailingCase(ProjectCase):
    settings_of_services = 'CASEEXEC_SERVICES = {"redis": Redis()}\nCASEEXEC_SETTINGS = {"BROKER_URL": "{redis.url}"}\n'

    def setUp(self):
        super().setUp()
        self.settings(self.settings_of_services)

    def fails(self, *arguments, source=None, code=1):
        tests = [] if source is None else [self.given_tests(source)]
        self.assertEqual(self.manage("test", *tests, *arguments), code, self.output)
        self.check_all_ended()
        return self.output

    def check_all_ended(self):
        left = [name for name in os.listdir(self.run_tmp) if not name.endswith(".log")]
        self.assertEqual(left, [], self.output)
        for pid in self.pids():
            self.assertFalse(self.is_ours(pid), self.output)

    def pids(self):
        try:
            with open(self.path("project/pids")) as file:
                return [int(pid) for pid in file.read().split()]
        except FileNotFoundError:
            return []

    def is_ours(self, pid):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                return self.run_tmp in file.read()
        except (FileNotFoundError, ProcessLookupError):
            return False


class FailingTests(FailingCase):
    def test_a_failing_test_tells_what_its_services_wrote(self):
        output = self.fails(source=FAILING)
        self.assertIn("AssertionError: 0 != 7", output)
        self.assertIn("What its services wrote during this test:\n  redis (", output)
        self.assertIn("FAILED (failures=1)", output)

    def test_so_it_does_in_a_worker_and_when_it_is_to_end_all(self):
        output = self.fails("--parallel", "2", "--failfast", source=FAILING)
        self.assertIn("AssertionError: 0 != 7", output)
        self.assertIn("What its services wrote during this test:\n  redis (", output)

    def test_without_tblib_the_run_breaks_off_and_the_cause_is_there(self):
        os.mkdir(self.path("project/tblib"))
        self.write("project/tblib/__init__.py", NO_TBLIB)
        self.assertIn("0 != 7", self.fails("--parallel", "2", source=FAILING))

    def test_a_failing_set_up_of_test_data_tells_what_the_services_wrote(self):
        source = HEAD + (
            "class DataTests(Base):\n"
            "    @classmethod\n"
            "    def setUpTestData(cls):\n"
            "        note(cls.redis)\n"
            "        raise ValueError('no data')\n"
            "    def test_it(self): pass\n"
        )
        output = self.fails(source=source)
        self.assertIn("ValueError: no data", output)
        self.assertIn("What its services wrote during DataTests.setUpClass:\n  redis (", output)
        self.assertEqual(len(self.pids()), 1)


RUNNER = """
import psutil
from caseexec.django import ServicesRunnerMixin

class Runner(ServicesRunnerMixin):
    def setup_databases(self, **options):
        {then}
        return super().setup_databases(**options)
"""
CRASH = """for one in psutil.Process().children():
            if one.name() == "postgres":
                one.kill()
                list(iter(one.status, psutil.STATUS_ZOMBIE))
"""


@require("initdb", "postgresql", client="psycopg")
class FailingSetUpTests(FailingCase):
    settings_of_services = 'CASEEXEC_SERVICES = {"default": PostgreSQL()}\nTEST_RUNNER = "project.runner.Runner"\n'

    def test_an_error_while_the_databases_are_made_is_told(self):
        self.write("project/project/runner.py", RUNNER.format(then="raise ValueError('no databases')"))
        self.assertIn("ValueError: no databases", self.fails(source=FAILING))

    def test_a_service_that_dies_meanwhile_is_the_one_error(self):
        self.write("project/project/runner.py", RUNNER.format(then=CRASH))
        output = self.fails(source=FAILING)
        self.assertRegex(output, r"CommandError: ServiceDied: default was killed by SIGKILL during the run")
        self.assertNotIn("Traceback", output)
