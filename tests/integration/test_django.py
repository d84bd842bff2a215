import contextlib
import os
import unittest
import urllib.request
from typing import ClassVar

from tests.helpers import django_site  # noqa: F401  before what needs Django and its settings

# isort: split
from django.core.cache import cache
from django.db import IntegrityError, connection, models, transaction
from django.http import HttpResponse
from django.test import AsyncClient, LiveServerTestCase, SimpleTestCase, TestCase, override_settings
from django.urls import path

from caseexec import HTTPServiceMixin, TCPServiceMixin
from tests.integration.servers import require

with contextlib.suppress(ImportError):  # The classes that need it are skipped then.
    import redis


class Fruit(models.Model):
    name = models.CharField(max_length=20, unique=True)

    class Meta:
        app_label = "caseexec_integration"


def colour(request, name):
    return HttpResponse(cache.get(name, "unknown"))


async def colour_async(request, name):
    return HttpResponse(await cache.aget(name, "unknown"))


urlpatterns = [path("colour/<name>", colour), path("async/<name>", colour_async)]
OUR_SITE = {"ROOT_URLCONF": __name__, "STATIC_URL": "static/", "ALLOWED_HOSTS": ["*"]}


def setUpModule():
    with connection.schema_editor() as editor:
        editor.create_model(Fruit)


def tearDownModule():
    with connection.schema_editor() as editor:
        editor.delete_model(Fruit)
    connection.close()


class RedisMixin(TCPServiceMixin):
    """A Redis of the class's own, which is the site's cache in each test."""

    service_command = "redis-server --bind {host} --port {port} --save '' --dir {tmp}"

    def setUp(self):
        super().setUp()
        backend = "django.core.cache.backends.redis.RedisCache"
        default = {"BACKEND": backend, "LOCATION": f"redis://{self.service.address}"}
        self.enterContext(override_settings(CACHES={"default": default}))
        self.addCleanup(cache.close)


class FromTheTestData:
    """Tests that hold whichever of the bases is named first."""

    @classmethod
    def setUpTestData(cls):
        cls.number = Fruit.objects.create(name="quince").pk
        with redis.Redis(cls.service.host, cls.service.port) as client:
            client.set("number", cls.number)

    def test_what_the_test_data_have_put_into_the_service_is_there(self):
        with redis.Redis(self.service.host, self.service.port) as client:
            self.assertEqual(int(client.get("number")), self.number)

    def test_a_view_reads_from_the_service(self):
        cache.set("quince", "yellow")
        self.assertContains(self.client.get("/colour/quince"), "yellow")

    def test_the_database_is_rolled_back_and_the_service_is_not(self):
        with self.assertRaises(IntegrityError), transaction.atomic():
            Fruit.objects.create(name="medlar")
            cache.set("medlar", "brown")
            Fruit.objects.create(name="quince")  # There is one.
        self.assertFalse(Fruit.objects.filter(name="medlar").exists())
        self.assertEqual(cache.get("medlar"), "brown")


@override_settings(**OUR_SITE)
@require("redis-server", "redis-server", client="redis")
class DjangoTests(FromTheTestData, RedisMixin, TestCase):
    pass


@override_settings(**OUR_SITE)
@require("redis-server", "redis-server", client="redis")
class DjangoInTheOtherOrderTests(FromTheTestData, TestCase, RedisMixin):
    pass


@override_settings(**OUR_SITE)
@require("redis-server", "redis-server", client="redis")
class DjangoWithoutADatabaseTests(RedisMixin, SimpleTestCase):
    def test_a_view_reads_from_the_service(self):
        cache.set("quince", "yellow")
        self.assertContains(self.client.get("/colour/quince"), "yellow")

    async def test_an_asynchronous_view_reads_from_the_service(self):
        await cache.aset("quince", "yellow")
        self.assertContains(await self.async_client.get("/async/quince"), "yellow")


@require("redis-server", "redis-server", client="redis")
class DjangoInAnAsyncioTestCaseTests(RedisMixin, unittest.IsolatedAsyncioTestCase):
    async def test_an_asynchronous_view_reads_from_the_service(self):
        with override_settings(**OUR_SITE):
            await cache.aset("quince", "yellow")
            answer = await AsyncClient().get("/async/quince")
        self.assertEqual(answer.content, b"yellow")


class BesideALiveServer:
    service_command = "{python} -m gunicorn --bind {address} gunicorn_app:application"
    service_cwd = os.path.dirname(__file__)
    service_env: ClassVar = {"GREETING": "hello", "XDG_RUNTIME_DIR": "{tmp}"}

    def get(self, url):
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def test_both_servers_answer(self):
        self.assertEqual(self.get(f"{self.live_server_url}/colour/quince"), "unknown")
        self.assertIn("hello", self.get(self.service.url))

    def test_each_keeps_its_own_address(self):
        self.assertEqual(self.live_server_url, f"http://{self.host}:{self.server_thread.port}")
        self.assertNotEqual(self.service.address, f"{self.host}:{self.server_thread.port}")


@override_settings(**OUR_SITE)
@require(client="gunicorn")
class LiveServerTests(BesideALiveServer, HTTPServiceMixin, LiveServerTestCase):
    pass


@override_settings(**OUR_SITE)
@require(client="gunicorn")
class LiveServerInTheOtherOrderTests(BesideALiveServer, LiveServerTestCase, HTTPServiceMixin):
    pass
