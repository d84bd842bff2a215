"""Each class has services of its own, whatever runs the tests."""

import io
import json
import os
import sys

from channels.testing import ChannelsLiveServerTestCase
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.test import LiveServerTestCase, TestCase, TransactionTestCase

from caseexec import OneShot, OutputService
from caseexec.django import ServiceSettingsMixin
from caseexec.servers import Redis
from shop.models import Order
from shop.tasks import pay

CALLER = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


class Cached(ServiceSettingsMixin):
    redis = Redis()

    @classmethod
    def service_settings(cls):
        return {"CACHES.default": cls.redis.django_settings()}

    def in_redis(self):
        return [key.decode() for key in cache._cache.get_client().keys()]


class CacheTests(Cached, TestCase):
    @classmethod
    def setUpTestData(cls):
        Order.objects.create(number=7)
        cache.set("from", "the test data")

    def test_a_view_caches_what_it_has_found(self):
        self.assertEqual(self.client.get("/orders/7").json(), {"number": 7, "paid": False})
        Order.objects.update(paid=True)
        self.assertEqual(self.client.get("/orders/7").json(), {"number": 7, "paid": False})
        self.assertLessEqual({":1:from", ":1:order-7"}, set(self.in_redis()))
        self.assertEqual(self.client.get("/cached/from").content, b"the test data")

    def test_a_command_leaves_what_it_has_counted(self):
        output = io.StringIO()
        call_command("unpaid", stdout=output)
        self.assertEqual(output.getvalue(), "1 unpaid\n")
        self.assertEqual(cache.get("unpaid"), 1)


class EmptiedTests(ServiceSettingsMixin, TestCase):
    redis = Redis(scope="session", reset=True)

    @classmethod
    def service_settings(cls):
        return {"CACHES.default": cls.redis.django_settings()}

    def test_a_key_is_new(self):
        self.assertTrue(cache.add("quince", 1))

    def test_it_is_new_again(self):
        self.assertTrue(cache.add("quince", 2))


class WebhookTests(Cached, LiveServerTestCase):
    """The bank calls back as soon as it is up; the view finds the cache."""

    bank = OneShot(["{python}", "-c", CALLER, "{live_server_url}/cached/from"])

    @classmethod
    def service_settings(cls):
        cls.seen = cls.redis.url
        return super().service_settings()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.told = cls.bank.tail()

    def test_it_was_answered(self):
        self.assertIn("nothing", self.told)
        self.assertEqual(settings.CACHES["default"]["LOCATION"], self.seen)


class ChannelsTests(Cached, ChannelsLiveServerTestCase):
    """The server is a process of its own."""

    bank = OneShot(["{python}", "-c", CALLER, "{live_server_url}/cached/from"], scope="test")

    def setUp(self):
        super().setUp()
        cache.set("from", "redis")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.address = f"http://localhost:{cls._port}"

    def test_it_finds_the_cache_and_is_called(self):
        self.assertEqual(self.live_server_url, self.address)


class Worked(Cached):
    """Celery connects once in a process, so its broker must be the same for all classes."""

    redis = Redis(scope="session")
    worker = OutputService(
        [sys.executable, "-m", "celery", "-A", "project", "worker", "--pool", "solo", "--loglevel", "INFO",
         "--without-gossip", "--without-mingle", "--without-heartbeat"],
        banner="celery@.* ready",
        env={
            "CELERY_BROKER_URL": "{redis.url}",
            "DATABASE": json.dumps({**settings.DATABASES["default"], "NAME": settings.DATABASES["default"]["TEST"]["NAME"]}),
        },
        cwd=os.fspath(settings.BASE_DIR),
        scope="session",
    )  # fmt: skip

    @classmethod
    def service_settings(cls):
        broker = {"CELERY_BROKER_URL": cls.redis.url, "CELERY_RESULT_BACKEND": cls.redis.url}
        return {**super().service_settings(), **broker}


class WorkerTests(Worked, TransactionTestCase):
    def test_a_task_is_done_by_the_worker(self):
        Order.objects.create(number=8)
        self.assertEqual(pay.delay(8).get(timeout=20), 1)
        self.assertTrue(Order.objects.get(number=8).paid)


class OtherWorkerTests(Worked, TransactionTestCase):
    def test_another_class_has_the_same_worker(self):
        Order.objects.create(number=9)
        self.assertEqual(pay.delay(9).get(timeout=20), 1)
