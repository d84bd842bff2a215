"""Redis, or Valkey."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from typing import Any
from urllib.parse import quote

from caseexec.deadline import Deadline
from caseexec.errors import shorten
from caseexec.executors.command import fact
from caseexec.probes import NotReady, Probe, Target, TCPProbe, require_ours
from caseexec.probes.base import CONNECT_TIMEOUT, refusal
from caseexec.probes.tcp import connected, refuse_self
from caseexec.probes.wire import Wire
from caseexec.servers.base import Server, ServerExecutor, ServerRefused
from caseexec.service import problems

__all__ = ["Redis", "RedisExecutor"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_COMMAND_TIMEOUT = 30.0


class RedisExecutor(ServerExecutor):
    """A running Redis.

    :param password: its password; empty: it has none.
    """

    django_setting = "CACHES"

    def __init__(self, *args: Any, password: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.password = password

    @fact
    def url(self) -> str:
        """``redis://host:port/0``; with a password ``redis://default:password@host:port/0``."""
        # With the name of the user, as redis-cli would take none for one without a name.
        password = f"default:{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{password}{self.address}/0"

    def env(self) -> dict[str, str]:
        """``REDIS_URL``, ``REDIS_HOST``, ``REDIS_PORT``; with a password ``REDIS_PASSWORD`` and ``REDISCLI_AUTH``."""
        found = {"REDIS_URL": self.url, "REDIS_HOST": self.host, "REDIS_PORT": str(self.port)}
        if self.password:
            found |= {"REDIS_PASSWORD": self.password, "REDISCLI_AUTH": self.password}
        return found

    def django_settings(self) -> dict[str, Any]:
        """A cache, by Django's own backend."""
        return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": self.url}

    def reset(self) -> None:
        """Remove all keys of all its databases.

        :raises OSError: it does not answer, or refuses.
        """
        self._ask(["FLUSHALL"], Deadline(_COMMAND_TIMEOUT))

    def version(self) -> str:
        """The version of the running server, such as ``7.0.15``.

        :raises OSError: it does not answer, or refuses.
        """
        told = self._ask(["INFO", "server"], Deadline(_COMMAND_TIMEOUT))
        lines = dict(line.partition(":")[::2] for line in told.splitlines())
        return lines.get("valkey_version") or lines["redis_version"]

    def _ask(self, command: list[str], deadline: Deadline) -> str:
        return _ask(self.host, self.port, self.password, command, deadline)

    def _own_probe(self) -> Probe | None:
        return RedisProbe(self.host, self.port, self.password)

    def _prepare(self) -> None:
        super()._prepare()
        if self.password:  # Not as an argument, which everybody can see.
            path = os.open(f"{self.tmp}/redis.conf", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"requirepass {_quoted(self.password)}\n")


@dataclass(frozen=True, repr=False)
class Redis(Server[RedisExecutor]):
    """A Redis, or Valkey, that writes nothing to disk and listens on loopback only.

    It is ready when it answers a PING. None of the user's configuration files is read.

    :param password: clients must give it; ``None``: there is none.
    """

    _: KW_ONLY
    password: str | None = field(default=None, repr=False)

    programs = ("redis-server", "valkey-server")
    packages = {  # noqa: RUF012
        "Debian, Ubuntu": "apt-get install redis-server",
        "Fedora": "dnf install valkey",
        "macOS": "brew install redis",
    }
    defaults = {  # noqa: RUF012
        "bind": "{host}",
        "port": "{port}",
        "dir": "{tmp}",
        "save": "",
        "appendonly": "no",
    }
    own = {**Server.own, "requirepass": "password"}  # noqa: RUF012
    runs_as = RedisExecutor
    offers = (*Server.offers, "password")

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from problems.of_password("password", self.password)

    def _command(self) -> Iterator[str]:
        program, *arguments = super()._command()
        yield program
        if self.password:
            yield "{tmp}/redis.conf"
        yield from arguments

    def _given(self) -> dict[str, Any]:
        return {"password": self.password or ""}

    def scheme_name(self) -> str:
        return "redis"


@dataclass(frozen=True)
class RedisProbe(TCPProbe):
    """Ready when it answers a PING."""

    password: str = field(repr=False)

    def __str__(self) -> str:
        return f"Redis to answer a PING at {self.host}:{self.port}"

    def check(self, target: Target, /) -> None:
        try:
            _ask(self.host, self.port, self.password, ["PING"], target.deadline.within(CONNECT_TIMEOUT))
        except ServerRefused as error:
            raise NotReady(str(error)) from error
        except OSError as error:
            raise NotReady(refusal(error)) from error
        require_ours(target, self.host, self.port)


def _ask(host: str, port: int, password: str, command: list[str], deadline: Deadline) -> str:
    """What a Redis answers.

    :raises ServerRefused: that is an error.
    :raises OSError: there is no answer.
    """
    sock = connected(host, port, CONNECT_TIMEOUT, deadline)
    with closing(Wire(sock, deadline)) as wire:
        refuse_self(sock)
        if password:
            _command(wire, ["AUTH", password])
        return _command(wire, command)


def _command(wire: Wire, command: list[str]) -> str:
    # https://redis.io/docs/latest/develop/reference/protocol-spec/
    parts = [part.encode() for part in command]
    wire.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    kind, text = (line := wire.read_line().decode(errors="replace"))[:1], line[1:]
    if kind == "-":
        raise ServerRefused(text)
    if kind == "$" and text.isdecimal():
        return wire.read(int(text)).decode(errors="replace")
    if kind != "+":
        raise ServerRefused(f"it does not speak Redis's protocol: {shorten(repr(line), 80)}")
    return text


def _quoted(text: str) -> str:
    """A text as redis.conf takes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
