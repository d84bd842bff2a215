"""The services are those of the run, as project.with_services has them."""

import os

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from caseexec.django import ServiceSettingsMixin
from caseexec.servers import Redis
from shop.models import Order
from shop.tasks import shout

# When the module is imported the services run, and the settings tell where they are.
CACHE = settings.CACHES["default"]["LOCATION"]
VENDOR = os.environ.get("VENDOR", "postgresql")


class DatabaseTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        Order.objects.create(number=7)

    def test_the_database_is_the_service(self):
        self.assertEqual(connection.vendor, VENDOR)
        self.assertEqual(Order.objects.get().number, 7)

    def test_the_cache_is_the_service(self):
        cache.set("mine", os.getpid())
        self.assertEqual(cache.get("mine"), os.getpid())
        self.assertEqual(settings.CACHES["default"]["LOCATION"], CACHE)


class TransactionTests(TransactionTestCase):
    def test_the_database_is_the_service(self):
        self.assertEqual(Order.objects.count(), 0)
        Order.objects.create(number=7)


class WorkerTests(SimpleTestCase):
    def test_the_worker_is_the_service(self):
        self.assertEqual(shout.delay("word").get(timeout=20), "WORD")


class OwnTests(ServiceSettingsMixin, TestCase):
    redis = Redis()

    @classmethod
    def service_settings(cls):
        return {"CACHES.default.LOCATION": cls.redis.url}

    def test_a_class_has_one_of_its_own_beside(self):
        cache.set("here", 1)
        self.assertEqual(cache._cache.get_client().dbsize(), 1)
        self.assertNotIn(self.redis.address, CACHE)
