import unittest

import redis

from caseexec import ServicesMixin, TCPService

# One Redis for all classes of the run; each test finds it empty.
REDIS = TCPService(
    "redis-server --bind {host} --port {port} --save ''",
    scope="session",
    reset=lambda service: redis.Redis(port=service.port).flushall(),
    if_missing="skip",
)


class BasketTests(ServicesMixin, unittest.TestCase):
    redis = REDIS

    def setUp(self):
        self.client = redis.Redis(port=self.redis.port)

    def test_it_is_empty_at_first(self):
        self.assertEqual(self.client.dbsize(), 0)
        self.client.rpush("basket", "apple")

    def test_something_can_be_put_into_it(self):
        self.assertEqual(self.client.rpush("basket", "pear"), 1)


class OrderTests(ServicesMixin, unittest.TestCase):
    cache = REDIS  # The same server, by another name.

    def test_there_is_none(self):
        self.assertEqual(redis.Redis(port=self.cache.port).keys(), [])


if __name__ == "__main__":
    unittest.main()
