"""The suite with mirakuru: one service after another is started in setUpClass, and stopped in tearDownClass."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from mirakuru import HTTPExecutor, TCPExecutor

from benchmarks.ports import HOST, free_port
from benchmarks.suite import commands
from benchmarks.suite.tests import ShopTests, Timed


class PostgreSQLExecutor(TCPExecutor):
    """Ready when it accepts clients, too; mirakuru has no option for that."""

    def after_start_check(self) -> bool:
        return super().after_start_check() and commands.accepts_clients(self)


class MirakuruServices(unittest.TestCase):
    """Starts and stops the services."""

    _executors: ClassVar[list[Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls._executors = []
        try:
            cls._start("redis", TCPExecutor, commands.REDIS)
            cls._start("memcached", TCPExecutor, commands.MEMCACHED, stop_signal=signal.SIGKILL)
            cls._start("nginx", HTTPExecutor, commands.NGINX, shell=True)
            cls._start("postgresql", PostgreSQLExecutor, commands.POSTGRESQL, shell=True, stop_signal=signal.SIGINT)
            cls._start("web", HTTPExecutor, commands.WEB)
        except BaseException:
            cls._stop()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stop()

    @classmethod
    def _start(cls, name: str, kind: Callable[..., Any], command: str | Sequence[str], **options: Any) -> None:
        port, tmp = free_port(), tempfile.mkdtemp()
        values = {"host": HOST, "port": str(port), "tmp": tmp}
        for other in ("redis", "postgresql"):
            if hasattr(cls, other):
                values[f"{other}.port"] = str(getattr(cls, other).port)
        where: tuple[object, ...] = (HOST, port)
        if kind is HTTPExecutor:
            where, options["method"] = (f"http://{HOST}:{port}/health",), "GET"
        executor = kind(
            fill(command, values) if isinstance(command, str) else [fill(part, values) for part in command],
            *where, cwd=tmp, timeout=30, stderr=subprocess.STDOUT, **options,
        )  # fmt: skip
        cls._executors.append((name, executor, tmp))
        executor.start()
        setattr(cls, name, executor)

    @classmethod
    def _stop(cls) -> None:
        for name, executor, tmp in reversed(cls._executors):
            executor.stop()
            if hasattr(cls, name):
                delattr(cls, name)
            shutil.rmtree(tmp)


class MirakuruShop(Timed, MirakuruServices, ShopTests):
    """Each class has services of its own."""


def fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{([a-z.]+)\}", lambda match: values[match[1]], text)
