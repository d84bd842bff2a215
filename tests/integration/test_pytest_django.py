"""The Django project's tests under pytest-django, as a user runs them."""

import glob
import re
import shutil
import socket

from tests.helpers import django_site  # noqa: F401  without Django there is nothing to do
from tests.helpers.leaks import soon
from tests.helpers.runs import RunCase
from tests.integration.servers import require
from tests.integration.test_django_project import PROJECT

TESTS = """
import socket
import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import TestCase
from caseexec.django import ServiceSettingsMixin
from caseexec.servers import Redis
from shop.models import Order

class DatabaseTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        Order.objects.create(number=7)

    def test_the_database_and_the_cache_are_the_services(self):
        self.assertEqual((connection.vendor, Order.objects.get().number), ("postgresql", 7))
        cache.set("word", "quince")
        self.assertEqual(cache.get("word"), "quince")

class OwnTests(ServiceSettingsMixin, TestCase):
    redis = Redis()

    @classmethod
    def service_settings(cls):
        return {"CACHES.default.LOCATION": cls.redis.url}

    def test_a_class_has_one_of_its_own_beside(self):
        cache.set("here", 1)
        self.assertEqual(cache._cache.get_client().dbsize(), 1)

@pytest.mark.django_db
def test_a_function_has_them(caseexec_django):
    assert connection.settings_dict["PORT"] == str(caseexec_django["default"].port)
    assert caseexec_django["redis"].address in settings.CACHES["default"]["LOCATION"]
    with open(f"port-{caseexec_django['redis'].port}", "w"):
        pass
"""
SETTINGS = """
from project.settings import *
from caseexec.servers import PostgreSQL, Redis
CASEEXEC_SERVICES = {"default": PostgreSQL(), "redis": Redis()}
CASEEXEC_SETTINGS = {"CACHES.default": {
    "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "{redis.url}",
}}
"""


@require("redis-server", "redis-server", client="redis")
@require("postgres", "postgresql", client="psycopg")
@require(client="pytest_django")
class PytestDjangoTests(RunCase):
    def setUp(self):
        super().setUp()
        shutil.copytree(PROJECT, self.tmp, ignore=shutil.ignore_patterns("__pycache__", "tests"), dirs_exist_ok=True)
        self.write("project/given.py", SETTINGS)
        self.write("test_given.py", TESTS)
        self.write("pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = project.given\ncaseexec_django = true\n")
        self.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        del self.environment["PYTHONDEVMODE"]

    def run_pytest(self, *options, plugins=("caseexec.pytest_plugin", "pytest_django.plugin"), code=0):
        named = [part for name in plugins for part in ("-p", name)]
        found, output = self.run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *options)
        self.assertEqual(found, code, output)
        return output

    def ended(self):
        ports = [int(path.rpartition("-")[2]) for path in glob.glob(self.path("port-*"))]

        def refused(port):
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) != 0

        return bool(ports) and soon(lambda: all(map(refused, ports)))

    def test_the_services_of_the_settings_run_for_all_tests(self):
        self.assertIn("3 passed", self.run_pytest())
        self.assertTrue(self.ended())

    def test_each_worker_has_its_own(self):
        self.assertIn("3 passed", self.run_pytest("-p", "xdist", "-n", "2"))
        self.assertTrue(self.ended())

    def test_one_that_cannot_be_started_is_told_once_and_ends_the_run(self):
        self.write("project/given.py", SETTINGS.replace("Redis()", "Redis(options={'nonsense': 1})"))
        output = self.run_pytest(code=1)
        self.assertEqual(len(re.findall("CASEEXEC_SERVICES.redis exited with status 1", output)), 1, output)
        self.assertIn(">>> 'nonsense \"1\"'", output)
        self.assertIn("the services of Django's settings could not be started", output)
        self.assertIn("1 error in", output)
        self.assertNotIn("Traceback", output)

    def test_settings_without_services_are_told_once_and_end_the_run(self):
        self.write("project/given.py", "from project.settings import *")
        output = self.run_pytest(code=1)
        told = "project.given has no CASEEXEC_SERVICES; is DJANGO_SETTINGS_MODULE that of the tests?"
        self.assertEqual(output.count(f"caseexec_django has no services: {told}"), 1, output)
        self.assertIn("1 error in", output)

    def test_without_pytest_django_it_says_so(self):
        self.write("test_given.py", "def test_it(caseexec_django): pass")
        output = self.run_pytest(plugins=("caseexec.pytest_plugin",), code=1)
        self.assertIn("\ncaseexec_django needs pytest-django: install that\n", output)

    def test_without_the_option_a_test_asks_for_them(self):
        self.write("pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = project.given\n")
        self.assertIn("1 passed", self.run_pytest("-k", "function", "test_given.py"))
