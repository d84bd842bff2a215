import pathlib
import unittest
import urllib.request

import redis

from caseexec import HTTPService, OneShot, ServicesMixin, TCPService

SHOP = pathlib.Path(__file__).with_name("shop.py")


class ShopTests(ServicesMixin, unittest.TestCase):
    redis = TCPService("redis-server --bind {host} --port {port} --save ''", if_missing="skip")
    greeting = OneShot("redis-cli -p {redis.port} set greeting welcome")
    shop = HTTPService(["{python}", "-u", SHOP, "{port}", "{redis.address}"], path="/health", after=(greeting,))

    def test_it_counts_its_visitors(self):
        for number in (1, 2):
            with urllib.request.urlopen(self.shop.url) as answer:
                self.assertEqual(answer.read().decode(), f"welcome, visitor {number}")
        self.assertEqual(redis.Redis(port=self.redis.port).get("visits"), b"2")


class SilentShopTests(ShopTests):
    greeting = OneShot("redis-cli -p {redis.port} set greeting hush")

    def test_it_counts_its_visitors(self):
        with urllib.request.urlopen(self.shop.url) as answer:
            self.assertEqual(answer.read().decode(), "hush, visitor 1")


if __name__ == "__main__":
    unittest.main()
