"""A Django project, tests/django_project, whose tests are run as a user runs them: ``manage.py test``."""

import os
import re
import shutil
import signal
import socket
import textwrap
import unittest

from tests.helpers import django_site  # noqa: F401  without Django there is nothing to do
from tests.helpers.leaks import alive, soon
from tests.helpers.runs import ROOT, RunCase
from tests.integration.servers import require
from tests.integration.test_docs import BROWSER

PROJECT = os.path.join(ROOT, "tests", "django_project")

# As "cd project; python manage.py"; where root has the data of others, they are in a directory of the test, too.
MANAGE = """if True:
    import os, runpy, sys
    from caseexec import cache
    os.chdir(sys.argv.pop(1))
    sys.path.insert(0, "")
    cache._ELSEWHERE = os.environ.get("XDG_CACHE_HOME", cache._ELSEWHERE)
    runpy.run_path("manage.py", run_name="__main__")
"""


@require("redis-server", "redis-server", client="redis")
@require(client="celery")
@require(client="channels")
@require(client="daphne")
class ProjectCase(RunCase):
    """Runs a copy of the project, in which settings and tests can be added."""

    def setUp(self):
        super().setUp()
        self.project = shutil.copytree(PROJECT, self.path("project"), ignore=shutil.ignore_patterns("__pycache__"))

    def settings(self, source):
        """Have other settings, which begin with those of ``project.with_services``, but for the services."""
        given = "from project.with_services import *\nCASEEXEC_SERVICES, CASEEXEC_SETTINGS = {}, {}\n"
        self.write("project/project/given.py", given + textwrap.dedent(source))
        self.environment["DJANGO_SETTINGS_MODULE"] = "project.given"

    def given_tests(self, source):
        self.write("project/shop/tests/tests_given.py", source)
        return "shop.tests.tests_given"

    def begin_manage(self, *arguments, **popen):
        return self.begin("-X", "dev", "-c", MANAGE, self.project, *arguments, **popen)

    def manage(self, *arguments):
        process = self.begin_manage(*arguments)
        self.output, _ = process.communicate(timeout=60)
        return process.returncode

    def check_passed(self, tests):
        self.assertEqual(re.findall(r"Ran (\d+) tests?", self.output), [str(tests)], self.output)
        self.assertRegex(self.output, "(?m)^OK$")
        # Of the sockets of its clients, as Celery's, a service that stays until the exit says nothing.
        self.assertNotIn("Warning", re.sub("ResourceWarning", "", self.output))
        self.check_nothing_is_left()

    def check_nothing_is_left(self, logs=0):
        left = sorted(os.listdir(self.run_tmp))
        self.assertEqual([name for name in left if not name.endswith(".log")], [], self.output)
        self.assertEqual(len(left), logs, self.output)

    def assert_passes(self, *arguments, tests):
        self.assertEqual(self.manage("test", *arguments), 0, self.output)
        self.check_passed(tests)


class ServicesOfClassesTests(ProjectCase):
    def test_each_class_brings_up_its_own(self):
        self.assert_passes("shop.tests.tests_services", tests=8)

    @unittest.skipUnless(BROWSER, "no browser: apt-get install chromium-driver; pip install selenium")
    def test_a_browser_sees_the_live_server(self):
        self.assert_passes("shop.tests.tests_browser", tests=1)


REDIS = """
    CASEEXEC_SERVICES = {"redis": Redis()}
    CASEEXEC_SETTINGS = {"CACHES.default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{redis.url}",
    }}
"""
# In the project's own tests.
DATABASE, OWN = "shop.tests.tests_run.DatabaseTests", "shop.tests.tests_run.OwnTests"

RECORDS_THE_SERVICE = """
    import os, time
    from django.conf import settings
    from django.test import SimpleTestCase

    class Tests(SimpleTestCase):
        def test_it(self):
            with open("there", "w") as file:
                file.write(settings.CACHES["default"]["LOCATION"])
            os.rename("there", "address")
            {then}
"""


class RunnerTests(ProjectCase):
    """A runner with services, and SQLite."""

    def setUp(self):
        super().setUp()
        self.settings(REDIS)
        self.environment["VENDOR"] = "sqlite"

    def redis_answers(self):
        with open(self.path("project/address")) as file:
            port = re.search(r":(\d+)/", file.read())[1]
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(port))) == 0

    def check_redis_has_ended(self):
        self.assertTrue(soon(lambda: not self.redis_answers()))

    def test_djangos_own_options_work(self):
        options = ["--reverse", "--shuffle", "7", "--failfast", "--debug-mode", "--timing", "--buffer"]
        self.assert_passes(DATABASE, "shop.tests.tests_run.TransactionTests", *options, tests=3)
        self.assertIn("Used shuffle seed: 7", self.output)

    def test_a_debugger_opens_and_the_run_ends_well(self):
        self.assertEqual(self.manage("test", self.given_tests(RECORDS_THE_SERVICE.format(then="1 / 0")), "--pdb"), 1)
        self.assertIn("Opening PDB: ZeroDivisionError", self.output)
        self.assertIn("FAILED (errors=1)", self.output)
        self.check_redis_has_ended()
        self.check_nothing_is_left()

    def test_without_services_the_settings_are_as_they_are(self):
        self.settings('CASEEXEC_SERVICES = {"redis": Redis(program="/no/such")}\nINSTALLED_APPS += ["caseexec.django"]')
        tests = self.given_tests(RECORDS_THE_SERVICE.format(then="").replace('["LOCATION"]', '["BACKEND"]'))
        self.assert_passes(tests, "--no-services", tests=1)

    def test_services_stay_until_enter_when_they_are_to_be_kept(self):
        read, write = os.pipe()
        self.addCleanup(os.close, write)
        process = self.begin_manage("test", DATABASE, "--keep-services", stdin=read)
        os.close(read)
        lines = iter(lambda: self.line(process), "")
        self.assertTrue(any("until Enter or Ctrl-C" in line for line in lines))
        address, pid = re.search(r"redis: redis://(\S+)/0 \(pid (\d+), log ", next(lines)).groups()
        self.environment["CASEEXEC_USE_REDIS"] = address
        self.assertEqual(self.manage("test", DATABASE, "--verbosity", "2"), 0, self.output)
        self.assertIn(f"Found redis {address}\n", self.output)
        self.assertTrue(alive(int(pid)))
        os.write(write, b"\n")
        self.assertEqual(process.wait(30), 0)
        self.assertFalse(alive(int(pid)))

    def test_an_interrupted_run_ends_its_services(self):
        tests = self.given_tests(RECORDS_THE_SERVICE.format(then="time.sleep(60)"))
        process = self.begin_manage("test", tests)
        self.assertTrue(soon(lambda: os.path.exists(self.path("project/address")), 30))
        self.assertTrue(self.redis_answers())
        process.send_signal(signal.SIGINT)  # Django goes on to the end of the test.
        self.assertTrue(process.poll() is None and self.redis_answers())
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            soon(lambda: process.poll() is not None, 0.5)
        self.output = process.stdout.read()
        self.assertNotEqual(process.returncode, 0)
        self.assertFalse(self.redis_answers())
        self.check_nothing_is_left()

    def test_a_service_that_dies_fails_the_run_with_one_clear_error(self):
        then = (
            "import psutil; redis, = [it for it in psutil.Process().children() if it.name() == 'redis-server']; "
            "redis.kill(); os.waitid(os.P_PID, redis.pid, os.WEXITED | os.WNOWAIT)"
        )
        self.assertEqual(self.manage("test", self.given_tests(RECORDS_THE_SERVICE.format(then=then))), 1)
        self.assertIn("CommandError: ServiceDied: redis was killed by SIGKILL during the run\n", self.output)
        self.assertIn(
            "  One that a test ends on purpose, or that may crash, is to be declared on the class", self.output
        )
        self.assertNotIn("Traceback", self.output)
        self.check_nothing_is_left(logs=1)

    def test_a_service_that_cannot_be_started_is_one_clear_error(self):
        self.settings("""
            CASEEXEC_SERVICES = {"redis": Redis(), "broken": OutputService("sh -c 'echo oh; exit 3'", banner="ready")}
            CASEEXEC_SETTINGS = {"REDIS_URL": "{redis.url}"}
        """)
        self.assertEqual(self.manage("test", DATABASE), 1)
        self.assertIn(
            "CommandError: ProcessExitedWithError: CASEEXEC_SERVICES.broken exited with status 3", self.output
        )
        self.assertNotIn("Traceback", self.output)
        self.assertNotIn("Creating test database", self.output)
        self.check_nothing_is_left(logs=1)

    def test_what_is_wrong_with_them_is_told_before_anything_is_started(self):
        self.settings("""
            INSTALLED_APPS += ["caseexec.django"]
            CASEEXEC_SERVICES = {"redis": Redis(program="redis-serve")}
            CASEEXEC_SETTINGS = {"CASHES": {}}
        """)
        wrong = [
            "(caseexec.E001) CASEEXEC_SERVICES['redis'].program: there is no program redis-serve. Install it",
            "(caseexec.E003) CASEEXEC_SETTINGS: there is no setting CASHES; did you mean CACHES?",
        ]
        for arguments in (["test", DATABASE], ["check"]):
            self.assertEqual(self.manage(*arguments), 1)
            self.assertNotIn("Traceback", self.output)
            for line in wrong:
                self.assertIn(line, self.output)

    def test_a_project_has_a_runner_of_its_own(self):
        self.write(
            "project/project/runner.py",
            """
            from caseexec.django import ServicesRunnerMixin
            from caseexec.servers import Redis
            from django.test.runner import DiscoverRunner

            class Runner(ServicesRunnerMixin, DiscoverRunner):
                def services(self):
                    return {"mine": Redis()}

                def service_settings(self, services):
                    entry = services["mine"].django_settings()
                    return {**super().service_settings(services), "CACHES.default": entry, "TIME_ZONE": "Europe/Rome"}
        """,
        )
        self.settings('TEST_RUNNER = "project.runner.Runner"')
        tests = self.given_tests(RECORDS_THE_SERVICE.format(then='self.assertEqual(settings.TIME_ZONE, "Europe/Rome")'))
        self.assert_passes(tests, tests=1)
        self.check_redis_has_ended()


@require("initdb", "postgresql", client="psycopg")
class RunnerWithPostgreSQLTests(ProjectCase):
    def setUp(self):
        super().setUp()
        self.settings("""
            CASEEXEC_SERVICES = {"default": PostgreSQL(), "redis": Redis()}
            CASEEXEC_SETTINGS = {"CACHES.default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{redis.url}",
            }}
        """)

    def test_workers_that_are_forked_use_the_services_of_the_run(self):
        self.environment["DJANGO_SETTINGS_MODULE"] = "project.with_services"
        self.assert_passes("shop.tests.tests_run", "--parallel", "2", tests=5)

    def test_classes_have_their_own_services_beside_it(self):
        with open(self.path("project/project/given.py"), "a") as file:
            file.write("DATABASES['default']['ENGINE'] = 'django.db.backends.postgresql'\n")  # So that the name stays.
            file.write("DATABASES['default']['TEST'] = {'NAME': 'of_the_tests'}\n")
        self.assert_passes("shop.tests.tests_services", "--verbosity", "2", tests=8)
        self.assertIn("Creating test database for alias 'default' ('of_the_tests')", self.output)

    @require("psql", "postgresql-client")
    def test_its_databases_begin_with_what_a_dump_has(self):
        self.environment["DJANGO_SETTINGS_MODULE"] = "project.with_dump"
        self.assert_passes("shop.tests.tests_dump", tests=2)

    def test_workers_that_are_spawned_do_as_well(self):
        with open(self.path("project/project/given.py"), "a") as file:
            file.write("import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n")
        self.assert_passes(DATABASE, OWN, "--parallel", "2", tests=3)

    def test_its_data_stay_for_the_next_run_when_the_database_is_to_be_kept(self):
        os.chmod(self.tmp, 0o755)
        os.chmod(self.make_dir("cache"), 0o755)
        self.environment["XDG_CACHE_HOME"] = self.path("cache")
        for known in ("Applying shop.0001_initial...", "No migrations to apply."):
            self.assert_passes(DATABASE, "--keepdb", "--verbosity", "2", tests=2)
            self.assertIn(known, self.output)

    def test_a_database_that_cannot_be_made_ends_all(self):
        with open(self.path("project/project/given.py"), "a") as file:
            file.write("DATABASES['default']['TEST'] = {'TEMPLATE': 'no_such_template'}\n")
        self.assertEqual(self.manage("test", DATABASE), 2)
        self.assertIn('template database "no_such_template" does not exist', self.output)
        self.check_nothing_is_left()
