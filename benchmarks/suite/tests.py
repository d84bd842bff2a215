"""What every class of the suite tests, and how long that takes; the services are attributes of the class."""

from __future__ import annotations

import os
import time
import unittest
import urllib.request
from contextlib import closing
from typing import Any, ClassVar

import redis
from pymemcache.client.base import Client

from benchmarks.suite.commands import database


def get(service: Any, path: str) -> str:
    with urllib.request.urlopen(f"http://{service.host}:{service.port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


class ShopTests(unittest.TestCase):
    """The tests: each needs that no other class has left anything in its services."""

    redis: ClassVar[Any]
    memcached: ClassVar[Any]
    nginx: ClassVar[Any]
    postgresql: ClassVar[Any]
    web: ClassVar[Any]

    def test_redis(self) -> None:
        with redis.Redis(self.redis.host, self.redis.port) as cache:
            self.assertTrue(cache.set("colour", "green", nx=True))
            self.assertEqual(cache.get("colour"), b"green")

    def test_memcached(self) -> None:
        with closing(Client((self.memcached.host, self.memcached.port), timeout=10)) as cache:
            self.assertTrue(cache.add("colour", "green", noreply=False))
            self.assertEqual(cache.get("colour"), b"green")

    def test_nginx(self) -> None:
        self.assertEqual(get(self.nginx, "/index.txt"), "It works\n")

    def test_postgresql(self) -> None:
        with database(self.postgresql) as connection:
            connection.execute("INSERT INTO fruit VALUES ('quince')")
            self.assertEqual(connection.execute("SELECT name FROM fruit").fetchall(), [("quince",)])

    def test_web(self) -> None:
        self.assertEqual([get(self.web, "/shop"), get(self.web, "/shop")], ["1", "2"])
        with database(self.postgresql) as connection:
            self.assertEqual(connection.execute("SELECT page FROM visits").fetchall(), [("/shop",), ("/shop",)])


class Timed(unittest.TestCase):
    """First among the bases: writes into the file SHOP_TIMES how long a class took to set up, to run, to tear down."""

    _times: ClassVar[list[float]]

    @classmethod
    def setUpClass(cls) -> None:
        begun = time.monotonic()
        super().setUpClass()
        cls._times = [begun, time.monotonic()]

    @classmethod
    def tearDownClass(cls) -> None:
        cls._times.append(time.monotonic())
        super().tearDownClass()
        cls._times.append(time.monotonic())
        if "SHOP_TIMES" in os.environ:
            with open(os.environ["SHOP_TIMES"], "a") as file:
                print(*(later - sooner for sooner, later in zip(cls._times, cls._times[1:], strict=False)), file=file)
