import pathlib
import urllib.request

import pytest
import redis

from caseexec import HTTPService, TCPService
from caseexec.pytest_plugin import service_fixture

SHOP = pathlib.Path(__file__).with_name("shop.py")

# As a rule these are in conftest.py.
cache = service_fixture(
    TCPService(
        "redis-server --bind {host} --port {port} --save ''",
        reset=lambda service: redis.Redis(port=service.port).flushall(),
        if_missing="skip",
    ),
    scope="session",
)
shop = service_fixture(
    HTTPService(["{python}", "-u", SHOP, "{port}", "{cache.address}"], path="/health"),
    scope="module",
)


@pytest.fixture
def client(cache):
    return redis.Redis(port=cache.port)


@pytest.mark.parametrize("greeting", ["welcome", "hello"])
def test_it_greets_its_first_visitor(shop, client, greeting):
    client.set("greeting", greeting)
    with urllib.request.urlopen(shop.url) as answer:
        assert answer.read().decode() == f"{greeting}, visitor 1"
