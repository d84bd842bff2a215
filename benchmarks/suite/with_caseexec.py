"""The suite with caseexec: services of each class, and services of the whole run."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import Any

import redis
from pymemcache.client.base import Client

from benchmarks.suite import commands
from benchmarks.suite.tests import ShopTests, Timed
from caseexec import HTTPService, ServicesMixin, TCPService


def empty_redis(service: Any) -> None:
    with redis.Redis(service.host, service.port) as cache:
        cache.flushall()


def empty_memcached(service: Any) -> None:
    with closing(Client((service.host, service.port), timeout=10)) as cache:
        cache.flush_all(noreply=False)


def empty_database(service: Any) -> None:
    with commands.database(service) as connection:
        connection.execute("DELETE FROM visits; DELETE FROM fruit")


class ClassShop(Timed, ServicesMixin, ShopTests):
    """Each class has services of its own."""

    redis = TCPService(commands.REDIS)
    memcached = TCPService(commands.MEMCACHED, stop_signal=signal.SIGKILL)
    nginx = HTTPService(commands.NGINX, shell=True, cwd="{tmp}", path="/health")
    postgresql = TCPService(
        commands.POSTGRESQL, shell=True, cwd="{tmp}", stop_signal=signal.SIGINT, probe=commands.accepts_clients
    )
    web = HTTPService(commands.WEB, path="/health")


class SessionShop(Timed, ServicesMixin, ShopTests):
    """All classes share their services, which are emptied before each test."""

    redis = TCPService(commands.REDIS, scope="session", reset=empty_redis)
    memcached = TCPService(commands.MEMCACHED, stop_signal=signal.SIGKILL, scope="session", reset=empty_memcached)
    nginx = HTTPService(commands.NGINX, shell=True, cwd="{tmp}", path="/health", scope="session")
    postgresql = TCPService(
        commands.POSTGRESQL, shell=True, cwd="{tmp}", stop_signal=signal.SIGINT, probe=commands.accepts_clients,
        scope="session", reset=empty_database,
    )  # fmt: skip
    web = HTTPService(commands.WEB, path="/health", scope="session")
