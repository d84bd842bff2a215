import contextlib
import os
import unittest
from typing import ClassVar

from caseexec import PidServiceMixin, TCPServiceMixin, UnixSocketServiceMixin
from tests.integration.servers import require

with contextlib.suppress(ImportError):  # Its classes are skipped then.
    import redis
    import redis.asyncio
    from redis.backoff import NoBackoff
    from redis.retry import Retry


def connect(case, **where):
    client = redis.Redis(**where, decode_responses=True, retry=Retry(NoBackoff(), 0))
    case.addCleanup(client.close)
    return client


def answers(service):
    """It accepts connections while it still loads its data, but refuses commands."""
    with redis.Redis(service.host, service.port, retry=Retry(NoBackoff(), 0)) as client:
        return client.ping()


@require("redis-server", "redis-server", client="redis")
class RedisTests(TCPServiceMixin, unittest.TestCase):
    service_command = "redis-server --bind {host} --port {port} --save '' --dir {tmp}"

    def setUp(self):
        self.redis = connect(self, host=self.service.host, port=self.service.port)

    def test_a_value_written_is_read_back(self):
        self.redis.set("colour", "green")
        self.assertEqual(self.redis.get("colour"), "green")

    def test_a_message_reaches_who_has_subscribed(self):
        with self.redis.pubsub(ignore_subscribe_messages=True) as news:
            news.subscribe("news")
            news.get_message(timeout=10)
            self.redis.publish("news", "rain")
            self.assertEqual(news.get_message(timeout=10)["data"], "rain")

    def test_it_is_refused_while_it_is_stopped_and_reachable_again_afterwards(self):
        with self.service.stopped(), self.assertRaisesRegex(redis.ConnectionError, "refused"):
            self.redis.ping()
        self.assertTrue(self.redis.ping())

    def test_a_value_kept_in_memory_only_is_gone_after_a_restart(self):
        self.redis.set("colour", "green")
        with self.service.stopped():
            pass
        self.assertIsNone(self.redis.get("colour"))


@require("redis-server", "redis-server", client="redis")
class PersistentRedisTests(TCPServiceMixin, unittest.TestCase):
    service_command = "redis-server --bind {host} --port {port} --appendonly yes"
    service_cwd = "{tmp}"
    service_probe = answers

    def test_a_value_survives_a_restart(self):
        client = connect(self, host=self.service.host, port=self.service.port)
        client.set("colour", "green")
        with self.service.stopped():
            pass
        self.assertEqual(client.get("colour"), "green")


@require("redis-server", "redis-server", client="redis")
class RedisOnAUnixSocketTests(UnixSocketServiceMixin, unittest.TestCase):
    service_command = "redis-server --port 0 --unixsocket {tmp}/redis.sock --save '' --dir {tmp}"
    service_socket = "{tmp}/redis.sock"

    def setUp(self):
        self.redis = connect(self, unix_socket_path=self.service.socket)

    def test_a_value_written_is_read_back(self):
        self.redis.set("colour", "green")
        self.assertEqual(self.redis.get("colour"), "green")

    def test_its_url_is_one_that_the_client_takes(self):
        with redis.Redis.from_url(self.service.url) as client:
            self.assertTrue(client.ping())

    def test_it_takes_no_port(self):
        self.assertIsNone(self.service.port)

    def test_its_socket_is_gone_while_it_is_stopped_and_there_again_afterwards(self):
        with self.service.stopped():
            with self.assertRaises(redis.ConnectionError):
                self.redis.ping()
            self.assertFalse(os.path.exists(self.service.socket))
        self.assertTrue(self.redis.ping())


@require("redis-server", "redis-server", client="redis")
class RedisWithAPidFileTests(PidServiceMixin, unittest.TestCase):
    service_command = "redis-server --bind {host} --port {port} --pidfile {tmp}/redis.pid --save '' --dir {tmp}"
    service_pid_file = "{tmp}/redis.pid"
    service_probe = answers

    def test_its_pid_file_names_the_process(self):
        with open(self.service.filename) as file:
            self.assertEqual(int(file.read()), self.service.pid)

    def test_it_answers_to_its_first_command(self):
        self.assertTrue(connect(self, host=self.service.host, port=self.service.port).ping())

    def test_its_pid_file_is_gone_while_it_is_stopped(self):
        with self.service.stopped():
            self.assertFalse(os.path.exists(self.service.filename))
        self.assertTrue(os.path.exists(self.service.filename))


@require("redis-server", "redis-server", client="redis")
class RedisWithAPasswordTests(TCPServiceMixin, unittest.TestCase):
    service_shell = True
    service_command = "exec redis-server --bind {host} --port {port} --requirepass \"$PASSWORD\" --save '' --dir {tmp}"
    service_env: ClassVar = {"PASSWORD": "open sesame"}

    def test_it_answers_only_to_who_knows_the_password(self):
        where = {"host": self.service.host, "port": self.service.port}
        self.assertTrue(connect(self, **where, password="open sesame").ping())
        with self.assertRaises(redis.AuthenticationError):
            connect(self, **where).ping()


@require("redis-server", "redis-server", client="redis")
class AsyncRedisTests(TCPServiceMixin, unittest.IsolatedAsyncioTestCase):
    service_command = "redis-server --bind {host} --port {port} --save '' --dir {tmp}"

    async def asyncSetUp(self):
        self.redis = redis.asyncio.Redis(host=self.service.host, port=self.service.port, decode_responses=True)
        self.addAsyncCleanup(self.redis.aclose)

    async def test_a_value_written_is_read_back(self):
        await self.redis.set("colour", "green")
        self.assertEqual(await self.redis.get("colour"), "green")


@require("redis-server", "redis-server", client="redis")
class AsyncRedisInTheOtherOrderTests(unittest.IsolatedAsyncioTestCase, TCPServiceMixin):
    service_command = AsyncRedisTests.service_command

    async def test_the_service_is_there(self):
        async with redis.asyncio.Redis(host=self.service.host, port=self.service.port) as client:
            self.assertTrue(await client.ping())
