import contextlib
import os
import signal
import unittest

from caseexec import TCPServiceMixin
from tests.integration.servers import require

with contextlib.suppress(ImportError):  # The class is skipped then.
    from pymemcache.client.base import Client

# As root it demands to be told which user to run as.
AS_USER = "-u nobody" if os.geteuid() == 0 else ""


@require("memcached", "memcached", client="pymemcache")
class MemcachedTests(TCPServiceMixin, unittest.TestCase):
    # UDP is off: a lease is of a TCP port.
    service_command = f"memcached {AS_USER} -l {{host}} -p {{port}} -U 0"
    service_stop_signal = signal.SIGKILL  # It has nothing to save, and takes up to a second for a SIGTERM.

    def setUp(self):
        self.cache = Client((self.service.host, self.service.port), connect_timeout=10, timeout=10)
        self.addCleanup(self.cache.close)

    def test_a_value_written_is_read_back(self):
        self.cache.set("colour", "green")
        self.assertEqual(self.cache.get("colour"), b"green")

    def test_of_two_who_changed_a_value_the_second_is_told(self):
        self.cache.set("colour", "green")
        _, first = self.cache.gets("colour")
        self.assertTrue(self.cache.cas("colour", "red", first))
        self.assertFalse(self.cache.cas("colour", "blue", first))

    def test_it_is_refused_while_it_is_stopped_and_reachable_again_afterwards(self):
        with self.service.stopped(), self.assertRaises(ConnectionRefusedError):
            self.cache.get("colour")
        self.cache.set("colour", "green")
        self.assertEqual(self.cache.get("colour"), b"green")


@require("memcached", "memcached", client="pymemcache")
class MemcachedInTheBackgroundTests(TCPServiceMixin, unittest.TestCase):
    service_command = f"memcached -d {AS_USER} -l {{host}} -p {{port}} -U 0"

    def test_it_answers_although_its_command_has_ended(self):
        with contextlib.closing(Client((self.service.host, self.service.port), timeout=10)) as cache:
            cache.set("colour", "green")
            self.assertEqual(cache.get("colour"), b"green")

    def test_it_is_gone_when_it_is_stopped(self):
        client = Client((self.service.host, self.service.port), timeout=10)
        self.addCleanup(client.close)
        with self.service.stopped(), self.assertRaises(ConnectionRefusedError):
            client.version()
        client.version()
