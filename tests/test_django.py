import unittest
import urllib.request

from tests.helpers import django_site  # noqa: F401  before what needs Django and its settings

# isort: split
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.cache import cache
from django.core.signals import setting_changed
from django.db import connection
from django.http import HttpResponse
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.urls import path, reverse

from caseexec import (
    DeclarationError,
    OneShot,
    OutputService,
    OutputServiceMixin,
    ServicesMixin,
    TCPService,
    TCPServiceMixin,
)
from caseexec.django import ServiceSettingsMixin
from caseexec.django.settings import changed, name_problem
from tests.helpers.classes import SERVER, MixinCase, run_class
from tests.helpers.leaks import alive
from tests.integration.servers import require

urlpatterns = [path("", lambda request: HttpResponse(settings.GREETING), name="greeting")]
SITE = {"ROOT_URLCONF": __name__, "STATIC_URL": "static/"}
BOTH_KINDS = {
    "CACHES": {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "a", "OPTIONS": {"X": 1}}
    },
    "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["there"]}],
    "LOGGING": {"version": 1, "loggers": {"django": {"level": "INFO"}, "django.request": {"level": "INFO"}}},
    "NUMBERS": {10: "ten", 20: ("twenty", "score")},
}


def tearDownModule():
    connection.close()


def add_header(get_response):
    def middleware(request):
        response = get_response(request)
        response["X-Greeting"] = settings.GREETING
        return response

    return middleware


class Greets(ServiceSettingsMixin):
    """A service whose address is a setting."""

    greeter = TCPService(SERVER)

    @classmethod
    def service_settings(cls):
        return {"GREETING": cls.greeter.address, **SITE}


class SeesIt:
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.seen = settings.GREETING

    def test_it_is_there(self):
        self.assertEqual([settings.GREETING, self.seen], [self.greeter.address] * 2)
        self.assertEqual(reverse("greeting"), "/")


class SeesItInTheTestData(SeesIt):
    @classmethod
    def setUpTestData(cls):
        cls.data = settings.GREETING

    def test_the_test_data_have_seen_it(self):
        self.assertEqual(self.data, self.greeter.address)


class AsksTheServer(SeesIt):
    def test_the_live_server_sees_it(self):
        with urllib.request.urlopen(self.live_server_url, timeout=10) as answer:
            self.assertEqual(answer.read().decode(), self.greeter.address)


class DjangosClassesTests(MixinCase):
    """With each of Django's test cases, whichever base is named first."""

    def check(self, test_case, tests=SeesIt):
        for bases in ((tests, Greets, test_case), (tests, test_case, Greets)):
            with self.subTest(bases):
                self.assert_passes(type("Case", bases, {"__module__": __name__}))
                self.assertFalse(hasattr(settings, "GREETING"))

    def test_with_simple_test_case(self):
        self.check(SimpleTestCase)

    def test_with_test_case(self):
        self.check(TestCase, SeesItInTheTestData)

    def test_with_transaction_test_case(self):
        self.check(TransactionTestCase)

    def test_with_live_server_test_case(self):
        self.check(LiveServerTestCase, AsksTheServer)

    def test_with_static_live_server_test_case(self):
        self.check(StaticLiveServerTestCase, AsksTheServer)

    def test_with_unittests_own(self):
        class Case(SeesIt, Greets, unittest.TestCase):
            pass

        self.assert_passes(Case)

    def test_with_a_mixin_for_one_service_in_either_order(self):
        class Both(SeesIt, TCPServiceMixin, ServiceSettingsMixin, SimpleTestCase):
            service_command = SERVER

            @classmethod
            def service_settings(cls):
                return {"GREETING": cls.service.address, **SITE}

            @property
            def greeter(self):
                return self.service

        class InTheOtherOrder(SeesIt, ServiceSettingsMixin, TCPServiceMixin, SimpleTestCase):
            service_command = SERVER
            service_settings = Both.__dict__["service_settings"]
            greeter = Both.greeter

        self.assert_passes(Both)
        self.assert_passes(InTheOtherOrder)


class SettingsOfServicesTests(MixinCase):
    def test_a_subclass_adds_to_what_its_base_gives(self):
        class Case(Greets, SimpleTestCase):
            @classmethod
            def service_settings(cls):
                return {**super().service_settings(), "ANSWER": cls.greeter.port}

            def test_both_are_there(self):
                self.assertEqual((settings.GREETING, settings.ANSWER), (self.greeter.address, self.greeter.port))

        self.assert_passes(Case)

    def test_what_overrides_settings_as_ever_goes_over_them(self):
        @override_settings(GREETING="of the class")
        class Case(Greets, SimpleTestCase):
            def test_that_of_the_class(self):
                self.assertEqual(settings.GREETING, "of the class")

            @override_settings(GREETING="of the test")
            def test_that_of_the_test(self):
                self.assertEqual(settings.GREETING, "of the test")

            def test_that_of_a_block(self):
                with self.settings(GREETING="of the block"):
                    self.assertEqual(settings.GREETING, "of the block")
                self.assertEqual(settings.GREETING, "of the class")

        self.assert_passes(Case)
        self.assertFalse(hasattr(settings, "GREETING"))

    @require("redis-server", "redis-server", client="redis")
    def test_a_cache_is_in_the_service_for_the_class_only(self):
        cache.set("quince", "before")
        self.addCleanup(cache.clear)

        class Case(ServiceSettingsMixin, SimpleTestCase):
            redis = TCPService("redis-server --bind {host} --port {port} --save '' --dir {tmp}")

            @classmethod
            def service_settings(cls):
                backend = "django.core.cache.backends.redis.RedisCache"
                return {"CACHES.default": {"BACKEND": backend, "LOCATION": f"redis://{cls.redis.address}"}}

            def test_it_is(self):
                import redis

                cache.set("quince", "yellow")
                with redis.Redis(self.redis.host, self.redis.port) as client:
                    self.assertEqual(client.keys(), [b":1:quince"])
                cache._cache.get_client("quince").connection_pool.disconnect()

        self.assert_passes(Case)
        self.assertEqual(cache.get("quince"), "before")

    def test_applications_and_middleware_are_those_of_the_class(self):
        class Case(Greets, SimpleTestCase):
            @classmethod
            def service_settings(cls):
                middleware = [f"{__name__}.add_header"]
                apps = ["django.contrib.messages"]
                return {**super().service_settings(), "INSTALLED_APPS": apps, "MIDDLEWARE": middleware}

            def test_they_are(self):
                self.assertTrue(apps.is_installed("django.contrib.messages"))
                self.assertEqual(self.client.get("/")["X-Greeting"], self.greeter.address)

        self.assert_passes(Case)
        self.assertFalse(apps.is_installed("django.contrib.messages"))

    def test_whoever_listens_to_changes_of_settings_is_told_of_both(self):
        told = []

        def listen(*, setting, value, enter, **_):
            if setting == "GREETING":
                told.append((enter, value))

        setting_changed.connect(listen)
        self.addCleanup(setting_changed.disconnect, listen)

        class Case(Greets, SimpleTestCase):
            def test_the_first(self):
                self.assertEqual(told, [(True, self.greeter.address)])

        self.assert_passes(Case)
        self.assertEqual(told[1:], [(False, None)])

    def test_it_is_undone_when_a_later_set_up_fails(self):
        class Case(Greets, TestCase):
            @classmethod
            def setUpTestData(cls):
                raise OSError(f"no data for {settings.GREETING}")

            def test_that_is_not_run(self):
                pass

        self.assertIn("OSError: no data for 127.0.0.1:", self.the_error(Case))
        self.assertFalse(hasattr(settings, "GREETING"))

    def test_it_is_undone_when_a_later_set_up_is_interrupted(self):
        class Case(Greets, TestCase):
            @classmethod
            def setUpTestData(cls):
                raise KeyboardInterrupt

            def test_that_is_not_run(self):
                pass

        with self.assertRaises(KeyboardInterrupt):
            run_class(Case)
        self.assertFalse(hasattr(settings, "GREETING"))
        Case.doClassCleanups()  # As nobody does then; the connection is for the tests behind this one.
        Case._rollback_atomics(Case.cls_atomics)

    def test_nothing_is_done_when_all_tests_are_skipped(self):
        class Case(Greets, SimpleTestCase):
            @unittest.skip("not today")
            def test_that_is_not_run(self):
                pass

        self.assertEqual(len(self.run_class(Case).skipped), 1)

    def refused(self, changes, *, service=TCPService(SERVER)):
        class Case(ServiceSettingsMixin, SimpleTestCase):
            greeter = service

            @classmethod
            def service_settings(cls):
                return changes(cls) if callable(changes) else changes

            def test_that_is_not_run(self):
                pass

        Case.__qualname__ = "Case"
        raised = f"caseexec.errors.DeclarationError: {__name__}.Case."
        errors = [line for line in self.the_error(Case).splitlines() if line.startswith(raised)]
        self.assertEqual(len(errors), 1)
        return errors[0].removeprefix(raised)

    def test_databases_are_for_the_runner(self):
        told = (
            "service_settings: DATABASES can't be changed for a class, as the test databases are made before it: let the "
            "test runner start that service, with TEST_RUNNER = 'caseexec.django.ServicesRunner' and CASEEXEC_SERVICES"
        )
        self.assertEqual(self.refused({"DATABASES": {}}), told)
        self.assertEqual(self.refused({"DATABASES.default.HOST": "here"}), told)

    def test_what_is_wrong_with_them_is_told_with_the_class(self):
        self.assertEqual(
            self.refused({"CASHES": {}}),
            "service_settings: there is no setting CASHES; did you mean CACHES? If it is a new one, give it any value in "
            "the project's settings",
        )
        self.assertEqual(
            self.refused(None), "service_settings: a NoneType is no dict of settings by name: write {'NAME': value}"
        )

    def test_a_placeholder_is_not_taken_for_an_address(self):
        self.assertEqual(
            self.refused({"GREETING": "{zzz.url}", "CACHES.default": {"LOCATION": "x{greeter.address}"}}),
            "service_settings: {greeter.address} is filled in only in CASEEXEC_SETTINGS and in declarations: write "
            "cls.greeter.address, as the services run here",
        )

    def test_behind_the_mixin_they_are_refused_when_the_class_is_defined(self):
        class Given:
            @classmethod
            def service_settings(cls):
                return {"GREETING": "hello"}

        class Ahead(Given, ServiceSettingsMixin, SimpleTestCase):
            pass

        self.assertEqual(Ahead.service_settings(), {"GREETING": "hello"})
        with self.assertRaisesRegex(
            DeclarationError,
            r"Case.service_settings: that of \S+Given is never called, as it stands behind ServiceSettingsMixin: name "
            "Given before that$",
        ):

            class Case(ServiceSettingsMixin, Given, SimpleTestCase):
                pass

    def test_without_the_mixin_they_are_refused_when_the_class_is_defined(self):
        with self.assertRaisesRegex(
            DeclarationError,
            "Case.service_settings: nothing calls it: derive from caseexec.django.ServiceSettingsMixin in place of ",
        ):

            class Case(ServicesMixin, SimpleTestCase):
                @classmethod
                def service_settings(cls):
                    return {}

    def test_a_method_that_is_none_of_the_class_is_refused_when_the_class_is_defined(self):
        with self.assertRaisesRegex(
            DeclarationError,
            r"Case.service_settings: it is <function .*>, but must be a class method that returns the settings: write "
            "@classmethod$",
        ):

            class Case(ServiceSettingsMixin, SimpleTestCase):
                def service_settings(self):
                    return {}

        with self.assertRaisesRegex(DeclarationError, "it is {'A': 1}, but must be a class method"):

            class Other(TCPServiceMixin, ServiceSettingsMixin, SimpleTestCase):
                service_settings = {"A": 1}


@override_settings(**BOTH_KINDS)
class ChangedTests(SimpleTestCase):
    def changed(self, **changes):
        found = changed(changes, "here")
        for name, value in BOTH_KINDS.items():
            self.assertEqual(getattr(settings, name), value)
        return found

    def at(self, path, value):
        return changed({path: value}, "here")

    def problem(self, changes):
        with self.assertRaises(DeclarationError) as caught:
            changed(changes, "here")
        self.assertEqual(caught.exception.where, "here")
        return caught.exception.problem

    def test_a_whole_one_takes_the_place_of_the_present_one(self):
        self.assertEqual(self.at("CACHES", {"default": {}}), {"CACHES": {"default": {}}})
        self.assertEqual(self.at("TIME_ZONE", "UTC"), {"TIME_ZONE": "UTC"})

    def test_a_path_leaves_what_is_beside_it(self):
        before = settings.CACHES["default"].copy()
        found = self.at("CACHES.default.LOCATION", "b")
        self.assertEqual(found, {"CACHES": {"default": {**before, "LOCATION": "b"}}})
        self.assertEqual(settings.CACHES["default"], before)

    def test_a_new_key_is_added(self):
        self.assertEqual(self.at("CACHES.other", {"A": 1})["CACHES"].keys(), {"default", "other"})
        self.assertEqual(self.at("CACHES.default2", {"A": 1})["CACHES"].keys(), {"default", "default2"})

    def test_several_paths_go_into_one_setting(self):
        found = changed({"CACHES.default.LOCATION": "b", "CACHES.default.OPTIONS.X": 2}, "here")
        self.assertEqual(found["CACHES"]["default"]["LOCATION"], "b")
        self.assertEqual(found["CACHES"]["default"]["OPTIONS"], {"X": 2})

    def test_a_path_goes_into_a_whole_one_that_is_given_beside_it(self):
        found = changed({"NEW.key": 1, "NEW": {"other": 2}}, "here")
        self.assertEqual(found, {"NEW": {"other": 2, "key": 1}})

    def test_an_index_goes_into_a_list(self):
        found = self.at("TEMPLATES.0.DIRS", ["here"])
        self.assertEqual([engine["DIRS"] for engine in found["TEMPLATES"]], [["here"]])
        self.assertEqual(settings.TEMPLATES[0]["DIRS"], ["there"])

    def test_a_key_may_have_dots_or_be_a_number_and_a_tuple_stays_one(self):
        loggers = self.at("LOGGING.loggers.django.request.level", "DEBUG")["LOGGING"]["loggers"]
        self.assertEqual(loggers, {"django": {"level": "INFO"}, "django.request": {"level": "DEBUG"}})
        self.assertEqual(self.at("NUMBERS.20.0", "xx")["NUMBERS"], {10: "ten", 20: ("xx", "score")})

    def test_a_place_that_is_not_there_is_refused(self):
        self.assertEqual(
            self.problem({"CACHES.defualt.LOCATION": "b"}),
            "there is no place 'CACHES.defualt.LOCATION': CACHES has no 'defualt'; did you mean default? What is new, "
            "give whole",
        )
        self.assertEqual(
            self.problem({"CACHES.default.LOCATON": "b"}),
            "there is no place 'CACHES.default.LOCATON': CACHES.default has no 'LOCATON'; did you mean LOCATION? What is "
            "new, give whole",
        )
        self.assertEqual(
            self.problem({"TEMPLATES.1.DIRS": []}),
            "there is no place 'TEMPLATES.1.DIRS': TEMPLATES has 1 items, so that '1' is no index: to add one, give it "
            "whole",
        )
        self.assertEqual(
            self.problem({"TIME_ZONE.city": "Rome"}),
            "there is no place 'TIME_ZONE.city': TIME_ZONE is a str, and nothing is in that",
        )
        self.assertEqual(
            self.problem({"CELERY_OPTIONS.a.b": 1}),
            "there is no CELERY_OPTIONS in which 'CELERY_OPTIONS.a.b' could be: give CELERY_OPTIONS whole",
        )

    def test_a_name_that_is_near_to_another_is_taken_for_a_slip(self):
        for name, meant in {
            "CASHES": "CACHES", "CACHE": "CACHES", "EMAIL_HOTS": "EMAIL_HOST", "SESSION_ENGIN": "SESSION_ENGINE",
            "INSTALED_APPS": "INSTALLED_APPS", "NUMBER": "NUMBERS",
        }.items():  # fmt: skip
            self.assertIn(f"did you mean {meant}?", name_problem(name))

    def test_other_new_names_are_those_of_applications(self):
        for name in (
            "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CHANNEL_LAYERS", "REDIS_URL", "CACHE_URL", "DATABASE_URL",
            "ELASTICSEARCH_DSL", "HAYSTACK_CONNECTIONS", "RQ_QUEUES", "AWS_S3_ENDPOINT_URL", "EMAIL_FILE", "SMTP_PORT",
            "STRIPE_API_BASE", "SEARCH_URL", "S3_URL", "SENTRY_DSN",
        ):  # fmt: skip
            self.assertEqual(name_problem(name), "")

    def test_small_letters_are_no_setting(self):
        self.assertEqual(
            self.problem({"caches": {}}),
            "'caches' is no name of a setting, which has capitals only; did you mean CACHES?",
        )


def live_server_user(**options):
    """A service that asks the live server for something before it is ready."""
    code = (
        "import signal, sys, urllib.request; "
        "print('was told', urllib.request.urlopen(sys.argv[1], timeout=10).read().decode(), flush=True); "
        "signal.pause()"
    )
    return OutputService(["{python}", "-c", code, "{live_server_url}"], banner="was told .*", **options)


class LiveServerUrlTests(MixinCase):
    """A service that calls the live server back."""

    def test_it_is_started_behind_the_live_server_and_what_needs_it_behind_it(self):
        class Case(Greets, LiveServerTestCase):
            caller = live_server_user()
            behind = OneShot("echo called by {caller.tmp}")

            @classmethod
            def setUpClass(cls):
                super().setUpClass()
                cls.then = cls.caller.tail()

            def test_it_was_told_what_the_settings_say(self):
                self.assertIn(f"was told {self.greeter.address}", self.then)
                self.assertIn(self.caller.tmp, self.behind.tail())
                self.assertTrue(self.caller.running())

        self.assert_passes(Case)

    def test_it_needs_no_mixin_for_settings_and_may_be_for_each_test(self):
        @override_settings(GREETING="hello", **SITE)
        class Case(OutputServiceMixin, LiveServerTestCase):
            service_command = live_server_user().command
            service_banner = "was told hello"
            service_scope = "test"

            def test_it_was_told(self):
                self.assertTrue(self.service.running())

        self.assert_passes(Case)

    def test_it_is_stopped_before_a_server_that_ends_with_the_class(self):
        ends = []

        class ServerCase(SimpleTestCase):
            live_server_url = property(lambda cls: f"http://there/{cls.number}")

            @classmethod
            def setUpClass(cls):
                super().setUpClass()
                cls.number = 7

            @classmethod
            def tearDownClass(cls):
                ends.append((alive(cls.pids["caller"]), alive(cls.pids["early"])))
                super().tearDownClass()

        class Case(ServicesMixin, ServerCase):
            early = TCPService(SERVER)
            caller = OutputService("sh -c 'echo {live_server_url}; exec sleep 60'", banner="there/7$")

            def test_of_their_pids(self):
                type(self).pids = {"caller": self.caller.pid, "early": self.early.pid}

        self.assert_passes(Case)
        self.assertEqual(ends, [(False, True)])

    def test_one_that_fails_ends_the_others_of_the_class(self):
        class Case(Greets, LiveServerTestCase):
            caller = OneShot(["{python}", "-c", "import sys; sys.exit('{live_server_url} is no good')"])

            def test_that_is_not_run(self):
                pass

        self.assertRegex(self.the_error(Case), "http://localhost:[0-9]+ is no good")
        self.assertFalse(hasattr(settings, "GREETING"))

    def test_its_address_cannot_be_a_setting(self):
        class Case(ServiceSettingsMixin, LiveServerTestCase):
            caller = live_server_user()

            @classmethod
            def service_settings(cls):
                return {"GREETING": cls.caller.tmp}

            def test_that_is_not_run(self):
                pass

        Case.__qualname__ = "Case"
        self.assertIn(
            f"ServiceNotStarted: {__name__}.Case.caller: it does not run yet, as it (or what it needs) calls the live "
            "server, which starts when settings and test data are made: use it in a test, or in setUpClass behind "
            "super().setUpClass().",
            self.the_error(Case),
        )

    def problem(self, define):
        with self.assertRaises(DeclarationError) as caught:
            define()
        return str(caught.exception).replace(define.__qualname__ + ".<locals>.", "")

    def test_a_class_without_a_live_server_is_refused(self):
        def define():
            class Case(Greets, TestCase):
                caller = live_server_user()

                def test_that_is_not_run(self):
                    pass

        self.assertEqual(
            self.problem(define),
            f"{__name__}.Case.caller.command: {{live_server_url}} can't be filled, as {__name__}.Case has no "
            "live_server_url: derive it from django.test.LiveServerTestCase, or from another class with a live server",
        )

    def test_a_base_without_tests_may_leave_the_live_server_to_its_subclasses(self):
        class Base(Greets):
            caller = live_server_user()

        class Case(SeesIt, Base, LiveServerTestCase):
            pass

        self.assert_passes(Case)

    def test_an_order_of_bases_in_which_the_server_would_come_last_is_refused(self):
        def define():
            class Case(LiveServerTestCase, Greets):
                caller = live_server_user()

                def test_that_is_not_run(self):
                    pass

        self.assertEqual(
            self.problem(define),
            f"{__name__}.Case.caller.command: {{live_server_url}} can't be filled, as {__name__}.Case names "
            "LiveServerTestCase before caseexec's mixin: name the mixin first among its bases",
        )

    def test_it_cannot_be_shared_by_classes(self):
        def define():
            class Case(ServicesMixin, LiveServerTestCase):
                caller = live_server_user(scope="session")

        self.assertEqual(
            self.problem(define),
            f"{__name__}.Case.caller.scope: it is 'session', but {{live_server_url}} (in command) is of one class only: "
            "give it the scope 'class'",
        )

    def test_a_misspelt_one_is_refused_as_ever(self):
        with self.assertRaisesRegex(
            DeclarationError, "there is no placeholder {live_server}.* did you mean {live_server_url}"
        ):
            TCPService("x {port} {live_server}")
