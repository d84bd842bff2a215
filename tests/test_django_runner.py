"""What the test runner makes of declarations and settings; tests/integration/test_django_project.py runs it."""

import contextlib
import io
import os
import sqlite3
import sys
import unittest
from unittest import mock

from tests.helpers import django_site  # noqa: F401  before what needs Django and its settings

# isort: split
from django.conf import settings
from django.db import connection, connections
from django.test import SimpleTestCase, override_settings
from django.test.runner import DiscoverRunner, ParallelTestSuite
from django.test.utils import get_runner

from caseexec import OutputService, TCPService
from caseexec.django import ServicesRunner, ServicesRunnerMixin
from caseexec.django.applied import applied, cover
from caseexec.django.checks import check_all, check_services
from caseexec.django.declared import entries, filled, kept
from caseexec.django.workers import prepare
from caseexec.registry import current_run
from caseexec.servers import PostgreSQL, Redis
from tests.helpers.leaks import NothingRemains

SQLITE = {"ENGINE": "django.db.backends.sqlite3"}
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def tearDownModule():
    connection.close()


@override_settings(CACHES={"default": LOCMEM, "sessions": LOCMEM})
@override_settings(TEST_RUNNER="caseexec.django.ServicesRunner")
class ChecksTests(SimpleTestCase):
    def found(self, services, **changes):
        with override_settings(CASEEXEC_SERVICES=services, CASEEXEC_SETTINGS=changes.get("changes", {})):
            return [f"{message.id.removeprefix('caseexec.')} {message.msg}" for message in check_services()]

    def test_nothing_is_wrong_with_nothing(self):
        self.assertEqual(check_services(), [])
        self.assertEqual(self.found({}), [])

    def test_a_missing_program(self):
        services = {"web": TCPService("no-such-program {port}")}
        told = "E001 CASEEXEC_SERVICES['web'].command: there is no program 'no-such-program'"
        self.assertEqual(self.found(services), [told])

    def test_one_that_is_there_already_needs_none(self):
        os.environ["CASEEXEC_USE_WEB"] = "127.0.0.1:1"
        self.addCleanup(os.environ.pop, "CASEEXEC_USE_WEB")
        self.assertEqual(self.found({"web": TCPService("no-such-program {port}")}), [])

    def test_what_is_no_declaration(self):
        self.assertEqual(
            self.found([Redis()]),
            ["E002 CASEEXEC_SERVICES: a list is no dict of declarations by name: write {'redis': Redis()}"],
        )
        self.assertEqual(
            self.found({"redis": Redis, "web": "gunicorn", "a.b": Redis()}),
            [
                "E002 CASEEXEC_SERVICES['redis']: <class 'caseexec.servers.redis.Redis'> is no declaration of a "
                "service: write Redis()",
                "E002 CASEEXEC_SERVICES['web']: 'gunicorn' is no declaration of a service, such as Redis()",
                "E002 CASEEXEC_SERVICES['a.b']: that is no name of a service: write a word",
            ],
        )

    def test_a_service_that_another_names_and_that_is_not_there(self):
        self.assertEqual(
            self.found({"cache": Redis(program=sys.executable), "web": OutputService("sh {cach.url}", banner="x")}),
            [
                "E002 CASEEXEC_SERVICES['web'].command: the placeholder {cach.url} names 'cach', but there is no such "
                "service (there are cache, web); did you mean cache?"
            ],
        )

    def test_options_of_classes(self):
        for option, value in {
            "scope": "session", "restart": "test", "reset": print, "if_missing": "skip",
        }.items():  # fmt: skip
            self.assertEqual(
                self.found({"web": TCPService("sh {port}", **{option: value})}),
                [
                    f"E002 CASEEXEC_SERVICES['web'].{option}: the runner's services run from before the first test to "
                    "behind the last: leave it out"
                ],
            )
        self.assertEqual(
            self.found({"web": TCPService("sh {port} {live_server_url}")}),
            [
                "E002 CASEEXEC_SERVICES['web'].command: {live_server_url} is of a test class, and the runner's services "
                "start before all classes: declare it as an attribute of the class"
            ],
        )

    def test_what_is_wrong_with_where_they_go(self):
        web = {"web": TCPService("sh {port}")}
        self.assertEqual(
            self.found(web, changes={"CASHES": {}}),
            [
                "E003 CASEEXEC_SETTINGS: there is no setting CASHES; did you mean CACHES? If it is a new one, give it any "
                "value in the project's settings"
            ],
        )
        self.assertEqual(
            self.found(web, changes=["X"]),
            ["E003 CASEEXEC_SETTINGS: a list is no dict of settings by name: write {'NAME': value}"],
        )
        self.assertEqual(
            self.found(web, changes={"WEB": [{"at": "{web.adress} {wep.port} {other}"}]}),
            [
                "E004 CASEEXEC_SETTINGS: the placeholder {web.adress} can't be filled: a TCPService has no 'adress' to "
                "tell, only host, port, address, url, tmp; did you mean address?",
                "E004 CASEEXEC_SETTINGS: the placeholder {wep.port} names 'wep', but there is no such service (there are "
                "web); did you mean web?",
                "E004 CASEEXEC_SETTINGS: there is no placeholder {other}: name a service, as in {redis.url}; for the "
                "braces themselves write {{other}}",
            ],
        )

    def test_a_cache_whose_name_is_none(self):
        redis = Redis(program=sys.executable)
        told = "W001 CASEEXEC_SERVICES['session']: nothing is told where it is, as its name is none of CACHES"
        self.assertEqual(self.found({"session": redis}), [f"{told}; did you mean sessions?"])
        for used in ({"sessions": redis}, {"default": redis}):
            self.assertEqual(self.found(used), [])
        self.assertEqual(self.found({"session": redis}, changes={"URL": "{session.url}"}), [])
        other = TCPService("sh {port} {session.url}")
        self.assertEqual(self.found({"session": redis, "web": other}), [])

    def test_a_place_in_the_entry_of_a_service_may_be_named(self):
        redis = Redis(program=sys.executable)
        self.assertEqual(self.found({"default": redis}, changes={"CACHES.default.KEY_PREFIX": "x"}), [])

    def test_what_reaches_nothing_is_told_once(self):
        services = {"redis": Redis(program=sys.executable)}
        for installed, told in (([], 1), (["caseexec.django"], 0)):
            with override_settings(CASEEXEC_SERVICES=services, INSTALLED_APPS=installed):
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    ServicesRunner()._declared()
            self.assertEqual(output.getvalue().count("caseexec.W001"), told, installed)

    def test_a_runner_that_starts_none(self):
        for runner, told in (
            ("caseexec.django.ServicesRunner", []),
            ("django.test.runner.DiscoverRunner", ["CASEEXEC_SERVICES are not started by manage.py test, as TEST_RUNNER is "
                                                   "'django.test.runner.DiscoverRunner'"]),
            ("no.such.Runner", []),
        ):  # fmt: skip
            with override_settings(CASEEXEC_SERVICES={}, TEST_RUNNER=runner):
                self.assertEqual([message.msg for message in check_services()], told)

    def test_a_misspelt_runner_is_told_with_its_name(self):
        with override_settings(TEST_RUNNER="caseexec.django.ServiceRunner"):
            with self.assertRaisesRegex(AttributeError, "no attribute 'ServiceRunner'; did you mean ServicesRunner?"):
                get_runner(settings)

    def test_a_misspelt_setting_of_ours(self):
        for name in ("CASEEXEC_SERVCES", "CASEXEC_SERVICES", "CASEEXEC_SERVICE"):
            with override_settings(**{name: {}}):
                found = [message.msg for message in check_services()]
            self.assertEqual(found, [f"the setting {name} means nothing; did you mean CASEEXEC_SERVICES?"])

    def test_what_is_for_the_services_of_a_runner_of_ones_own_is_left_to_that(self):
        with override_settings(CASEEXEC_SETTINGS={"URL": "{redis.url}"}):
            self.assertEqual(check_services(), [])
            self.assertEqual([message.id for message in check_all({}, "Runner.services")], ["caseexec.E004"])

    def test_a_runner_is_named_in_place_of_the_settings(self):
        self.assertEqual(
            [str(message) for message in check_all({"web": 1}, "shop.Runner.services")],
            ["?: (caseexec.E002) shop.Runner.services['web']: 1 is no declaration of a service, such as Redis()"],
        )


class Running:
    """What is asked of an executor here."""

    def __init__(self, setting="", entry=None):
        self.django_setting, self._entry = setting, entry

    def django_settings(self):
        return self._entry


REDIS_ENTRY = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://there/0"}


class EntriesTests(SimpleTestCase):
    def entry(self, present, ours):
        with override_settings(CACHES={"mine": present}):
            return entries({"mine": Running("CACHES", ours)})

    def test_one_whose_name_is_an_alias_is_that_entry(self):
        with override_settings(CACHES={"default": LOCMEM, "mine": LOCMEM}):
            found = entries(
                {"mine": Running("CACHES", REDIS_ENTRY), "other": Running("CACHES", REDIS_ENTRY), "web": Running()}
            )
        self.assertEqual(found, {"CACHES.mine": REDIS_ENTRY})

    def test_what_is_of_no_kind_stays_and_options_of_another_kind_do_not(self):
        present = {**LOCMEM, "LOCATION": "x", "TIMEOUT": 5, "OPTIONS": {"MAX_ENTRIES": 3}}
        self.assertEqual(self.entry(present, REDIS_ENTRY), {"CACHES.mine": {**REDIS_ENTRY, "TIMEOUT": 5}})

    def test_an_engine_of_the_same_kind_stays_with_its_options(self):
        present = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "x", "OPTIONS": {"CLIENT_CLASS": "y"}}
        expected = {**present, "LOCATION": "redis://there/0"}
        self.assertEqual(self.entry(present, REDIS_ENTRY), {"CACHES.mine": expected})


class DatabaseEntriesTests(NothingRemains):
    """``DATABASES`` can't be overridden in this process without a word."""

    ours = {"ENGINE": "django.db.backends.sqlite3", "NAME": "ours", "HOST": "there"}

    def entry(self, present):
        with applied({"DATABASES": {"default": present}}):
            found = entries({"default": Running("DATABASES", self.ours)})["DATABASES.default"]
        return {key: found[key] for key in (*present, *self.ours)}

    def test_an_engine_of_the_same_vendor_stays(self):
        os.mkdir(self.path("spatial"))
        with open(self.path("spatial/base.py"), "w") as file:
            file.write("from django.db.backends.sqlite3.base import DatabaseWrapper")
        sys.path.insert(0, self.tmp)
        self.addCleanup(sys.path.remove, self.tmp)
        present = {
            "ENGINE": "spatial",
            "NAME": "x",
            "OPTIONS": {"timeout": 5},
            "TEST": {"NAME": "y"},
            "CONN_MAX_AGE": 3,
        }
        found = self.entry(present)
        self.assertEqual(found["TEST"].pop("NAME"), "y")
        self.assertEqual(found, {**present, "NAME": "ours", "HOST": "there", "TEST": found["TEST"]})

    def test_options_and_the_test_name_of_another_vendor_go(self):
        present = {"ENGINE": "django.db.backends.dummy", "OPTIONS": {"timeout": 5}, "TEST": {"NAME": "y", "MIGRATE": 0}}
        with applied({"DATABASES": {"default": present}}):
            found = entries({"default": Running("DATABASES", self.ours)})["DATABASES.default"]
        self.assertNotIn("OPTIONS", found)
        self.assertNotIn("NAME", found["TEST"])
        self.assertEqual(found["TEST"]["MIGRATE"], 0)
        self.assertEqual(found["ENGINE"], "django.db.backends.sqlite3")


class FilledTests(unittest.TestCase):
    def test_placeholders_are_filled_at_any_depth(self):
        values = {"redis.url": "redis://there", "redis.port": "7"}
        template = {"A": "{redis.url}/1", "B": [{"x": ("{redis.port}", 3, None)}], "C": "{{literally}}", "D": True}
        expected = {"A": "redis://there/1", "B": [{"x": ("7", 3, None)}], "C": "{literally}", "D": True}
        self.assertEqual(filled(template, values), expected)


class KeptTests(unittest.TestCase):
    def test_data_that_stay_have_a_name_of_the_project(self):
        with mock.patch.object(current_run(), "worker", ""):
            name = kept(PostgreSQL(), "default").keep
            self.assertRegex(name, r"^django-[\w-]+-default-[0-9a-f]{12}$")
            self.assertNotEqual(kept(PostgreSQL(), "other").keep, name)

    def test_what_keeps_none_or_has_a_name_already_is_as_it_was(self):
        for service in (PostgreSQL(keep="mine"), Redis()):
            self.assertIs(kept(service, "default"), service)

    def test_each_worker_has_its_own(self):
        with mock.patch.object(current_run(), "worker", "gw1"):
            self.assertRegex(kept(PostgreSQL(), "default").keep, r"^django-[\w-]+-default-gw1-[0-9a-f]{12}$")


class AppliedTests(NothingRemains):
    def test_connections_are_those_of_the_settings_in_the_block_and_behind_it(self):
        connection.ensure_connection()
        first, before = connection.connection, connections.settings["default"]["NAME"]
        there = {"default": {**SQLITE, "NAME": self.path("there")}, "other": {**SQLITE, "NAME": self.path("other")}}
        with applied({"DATABASES": there, "GREETING": "hello"}):
            with self.assertRaises(sqlite3.ProgrammingError):
                first.execute("SELECT 1")
            self.assertEqual(settings.GREETING, "hello")
            self.assertEqual(list(connections), ["default", "other"])
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE here (number)")
            self.assertTrue(os.path.exists(self.path("there")))
        self.assertEqual(connections.settings["default"]["NAME"], before)
        self.assertEqual(settings.DATABASES["default"]["NAME"], before)
        self.assertEqual(list(connections), ["default"])
        self.assertFalse(hasattr(settings, "GREETING"))

    def test_without_databases_connections_stay(self):
        connection.ensure_connection()
        first = connection.connection
        with applied({"GREETING": "hello"}):
            self.assertIs(connection.connection, first)
        self.assertIs(connection.connection, first)

    def test_settings_can_be_covered_for_good(self):
        self.addCleanup(setattr, settings, "_wrapped", settings._wrapped)
        cover({"GREETING": "hello"})
        self.assertEqual(settings.GREETING, "hello")


class WorkersTests(unittest.TestCase):
    def test_a_worker_is_set_up_as_it_would_be_and_then_has_the_settings(self):
        called = []

        class Suite(ParallelTestSuite):
            process_setup_args = (1, 2)

            def process_setup(*given):
                called.append(given)

        self.addCleanup(setattr, settings, "_wrapped", settings._wrapped)
        suite = Suite([], 2)
        prepare(suite, {"GREETING": "hello"})
        suite.process_setup.__func__(*suite.process_setup_args)
        self.assertEqual(called, [(1, 2)])
        self.assertEqual(settings.GREETING, "hello")


class RunnersTests(unittest.TestCase):
    def test_an_order_of_bases_in_which_nothing_would_be_started_is_refused(self):
        with self.assertRaisesRegex(TypeError, "method resolution"):

            class Runner(DiscoverRunner, ServicesRunnerMixin):
                pass

    def test_it_is_told_how_the_run_goes(self):
        self.assertEqual((ServicesRunner().no_services, ServicesRunner().keep_services), (False, False))
        self.assertTrue(ServicesRunner(no_services=True, parallel=2).no_services)
