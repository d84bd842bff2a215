"""How clients reach a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

__all__ = ["Database"]


@dataclass(frozen=True)
class Database:
    """A database of a running PostgreSQL.

    As a context manager it is dropped at the end of the block.

    :ivar name: its name.
    :ivar host: the address that the server listens on.
    :ivar port: its port.
    :ivar user: the superuser.
    :ivar password: the superuser's.
    """

    name: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    _drop: Callable[[str], object] = field(repr=False)

    @property
    def dsn(self) -> str:
        """``host=... port=... user=... password=... dbname=...``, as libpq takes it (psycopg, psql)."""
        named = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        return " ".join(f"{name}={_quoted(str(value))}" for name, value in {**named, "dbname": self.name}.items())

    @property
    def url(self) -> str:
        """``postgresql://user:password@host:port/name``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"postgresql://{self.user}:{quote(self.password, safe='')}@{host}:{self.port}/{quote(self.name, safe='')}"
        )

    def env(self) -> dict[str, str]:
        """``PGHOST``, ``PGPORT``, ``PGUSER``, ``PGPASSWORD``, ``PGDATABASE``; and ``DATABASE_URL``."""
        return {
            "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": self.password,
            "PGDATABASE": self.name, "DATABASE_URL": self.url,
        }  # fmt: skip

    def django_settings(self) -> dict[str, Any]:
        """An entry of Django's ``DATABASES``."""
        return {
            "ENGINE": "django.db.backends.postgresql", "HOST": self.host, "PORT": str(self.port), "USER": self.user,
            "PASSWORD": self.password, "NAME": self.name,
        }  # fmt: skip

    def drop(self) -> None:
        """Drop it, whoever is connected to it; does nothing when it is not there.

        :raises OSError: the server does not answer, or refuses.
        """
        self._drop(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()


def _quoted(value: str) -> str:
    if value and not set(value) & set(" '\\"):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
