"""Typical uses, type-checked and never run."""

import unittest

from caseexec import (
    Executor,
    HTTPExecutor,
    HTTPService,
    HTTPServiceMixin,
    OneShot,
    Probe,
    ServicesMixin,
    SimpleExecutor,
    TCPExecutor,
    TCPService,
    TCPServiceMixin,
    TimeoutExpired,
    UnixSocketServiceMixin,
    all_of,
    any_of,
    free_port,
)
from caseexec.pytest_plugin import service_fixture


class CacheTests(TCPServiceMixin, unittest.TestCase):
    service_command = "redis-server --port {port}"
    service_env = {"A": "{tmp}"}
    service_start_timeout = 5

    def test_ping(self) -> None:
        port: int = self.service.port
        host: str = self.service.host
        address: tuple[str, int] = (host, port)
        executor: TCPExecutor = self.service
        with self.service.stopped() as stopped:
            same: TCPExecutor = stopped
        pid: int | None = executor.pid
        print(address, same, pid, self.service.tail(lines=3), self.service.log_path, self.service.tmp)


class WebTests(HTTPServiceMixin, unittest.IsolatedAsyncioTestCase):
    service_command = ["{python}", "-m", "http.server", "{port}"]
    service_status = 200
    service_probe = staticmethod(lambda executor: bool(executor.pid))

    async def test_url(self) -> None:
        url: str = self.service.url
        print(url + "/path")


class SocketTests(UnixSocketServiceMixin):
    service_command = "server {tmp}/s"
    service_socket = "{tmp}/s"

    def test_socket(self) -> None:
        print(self.service.socket)


class ShopTests(ServicesMixin, unittest.IsolatedAsyncioTestCase):
    redis = TCPService("redis-server --port {port}", scope="session", reset=lambda executor: executor.restart())
    seed = OneShot("seed {redis.port}")
    web = HTTPService("web {port} {redis.address}", after=(redis, "seed"), env={"A": "b"}, restart="on_crash")
    other = redis.replace(port=7000)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        executor: TCPExecutor = cls.redis
        print(executor)

    async def test_them(self) -> None:
        port: int = self.redis.port
        url: str = self.web.url
        other: TCPExecutor = self.other
        mark = self.web.output_mark()
        match = self.web.wait_for_output("GET (.*)", timeout=5, since=mark)
        print(port, url, other, match[1], self.web.output_since(mark), self.seed.exit_code())
        await self.redis.arestart()
        async with self.web.astopped() as web:
            print(web.url)
        with self.web.paused() as paused:
            same: HTTPExecutor = paused
            print(same)


class Own(Executor):
    def pre_start_check(self) -> bool:
        return False

    def after_start_check(self) -> bool:
        return self.running()


server = service_fixture(TCPService("run {port}"), scope="session", name="server")


def use_executors() -> None:
    chained: HTTPExecutor = HTTPExecutor("run", "http://127.0.0.1:80/health", status="2..", timeout=3).start()
    chained.stop().kill()
    with SimpleExecutor(["sleep", "1"], shell=False, envvars={"A": "b"}) as simple:
        print(simple.command, simple.command_parts, simple.process)
    try:
        Own("run").start()
    except TimeoutExpired as error:
        print(error.timeout, error.facts.log_path, error.executor)
    probe: Probe = all_of(any_of(lambda executor: executor.port, lambda executor: True))
    TCPExecutor("run", "127.0.0.1", free_port(), probe=probe, listener="any", stop_timeout=1.5)
