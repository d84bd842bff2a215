"""A running PostgreSQL."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from caseexec.deadline import Deadline
from caseexec.errors import TimeoutExpired
from caseexec.executors.command import fact
from caseexec.probes import Claim, Probe
from caseexec.probes.base import CONNECT_TIMEOUT
from caseexec.probes.tcp import connected, refuse_self
from caseexec.probes.wire import Wire
from caseexec.servers.base import ServerExecutor
from caseexec.servers.postgresql.cluster import SUPERUSER, Cluster
from caseexec.servers.postgresql.database import Database
from caseexec.servers.postgresql.protocol import Session, identifier
from caseexec.servers.postgresql.readiness import DataDirectory, PostgreSQLProbe

__all__ = ["PostgreSQLExecutor"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_QUERY_TIMEOUT = 60.0
# The one that clients connect to by themselves, and the one that others are copies of.
_DATABASE, _TEMPLATE = "postgres", "template1"
# What the tests want of the server (options=) is not for what is done for them. That outlives a kill: a crash that came
# before the new database has its name would leave none of that name.
_OUR_OWN = "SET statement_timeout = 0; SET default_transaction_read_only = off; SET synchronous_commit = on"


class PostgreSQLExecutor(ServerExecutor):
    """A running PostgreSQL.

    :param cluster: what its data directory is made with.
    :param keep: the name of a data directory that stays; empty: it is a new one.
    :param as_owner: arguments for :class:`subprocess.Popen` that run a helper as the owner of the data directory.
    :ivar password: the superuser's; known when it runs.
    """

    django_setting = "DATABASES"

    def __init__(self, *args: Any, cluster: Cluster, keep: str, as_owner: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, popen_kwargs=as_owner, **kwargs)
        self.password = cluster.password
        self._cluster = cluster
        self._keep = keep
        self._as_owner = as_owner
        self._made: set[str] = set()

    # -- how it is reached ---------------------------------------------------------------------------------------------

    @property
    def user(self) -> str:
        """The superuser's name."""
        return SUPERUSER

    @property
    def data_directory(self) -> str:
        """Where its data are."""
        return f"{self.tmp}/data"

    @property
    def dsn(self) -> str:
        """As :attr:`Database.dsn`, of the database ``postgres``."""
        return self._database().dsn

    @fact
    def url(self) -> str:
        """As :attr:`Database.url`, of the database ``postgres``."""
        return self._database().url

    def env(self) -> dict[str, str]:
        """As :meth:`Database.env`, of the database ``postgres``."""
        return self._database().env()

    def django_settings(self) -> dict[str, Any]:
        """As :meth:`Database.django_settings`, of the database ``postgres``; Django's test database is beside it."""
        return self._database().django_settings()

    def version(self) -> str:
        """The version of the running server, such as ``15.14``.

        :raises OSError: it does not answer, or refuses.
        """
        with closing(self._connect(Deadline(_QUERY_TIMEOUT))) as session:
            return session.parameters["server_version"].split()[0]

    def _database(self, name: str = _DATABASE) -> Database:
        return Database(name, self.host, self.port, SUPERUSER, self.password, self._drop)

    # -- its databases -------------------------------------------------------------------------------------------------

    def database(self, name: str = "", template: str = _TEMPLATE) -> Database:
        """Make a database.

        :param name: its name; by default one that there is not.
        :param template: the database that it is a copy of; nobody may be connected to that.
        :raises OSError: the server does not answer, or refuses.
        """
        name = name or f"test_{secrets.token_hex(8)}"
        self._run_beside(template, f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(template)}")
        self._made.add(name)
        return self._database(name)

    def _drop(self, name: str) -> None:
        self._run_beside(name, _dropping(name))
        self._made.discard(name)

    def reset(self) -> None:
        """Drop what :meth:`database` has made, and make the database ``postgres`` anew, as a copy of ``template1``.

        Whoever is connected to one of them is disconnected.

        :raises OSError: the server does not answer, or refuses.
        """
        for name in list(self._made):
            self._drop(name)
        # First the new one: when it can't be made, as somebody is connected to the template, the old one stays.
        new = f"new_{secrets.token_hex(8)}"
        made = f"CREATE DATABASE {identifier(new)} TEMPLATE {identifier(_TEMPLATE)}"
        renamed = f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(_DATABASE)}"
        self._run_beside(_DATABASE, made, _dropping(_DATABASE), renamed)

    def _run_beside(self, name: str, *statements: str) -> None:
        """Run statements, while connected to another database than that one."""
        database = _TEMPLATE if name == _DATABASE else _DATABASE
        with closing(self._connect(Deadline(_QUERY_TIMEOUT), database)) as session:
            for statement in (_OUR_OWN, *statements):
                session.query(statement)

    def _connect(self, deadline: Deadline, database: str = _DATABASE) -> Session:
        sock = self._over_network(deadline) if self.existing else self._over_socket(deadline)
        try:
            return Session(Wire(sock, deadline), SUPERUSER, database, self.password)
        except BaseException:
            sock.close()
            raise

    def _over_network(self, deadline: Deadline) -> socket.socket:
        sock = connected(self.host, self.port, CONNECT_TIMEOUT, deadline)
        try:
            refuse_self(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _over_socket(self, deadline: Deadline) -> socket.socket:
        """A connection by the Unix socket, that nobody else can reach and that asks for no password."""
        sock, path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), f"{self.tmp}/.s.PGSQL.{self.port}"
        try:
            sock.settimeout(deadline.at_most(CONNECT_TIMEOUT))
            sock.connect(path)
            sock.setblocking(False)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                error.filename = path
            raise
        return sock

    # -- the start -----------------------------------------------------------------------------------------------------

    @property
    def envvars(self) -> dict[str, str]:
        """The environment of the command, without what is there for clients."""
        given = self._envvars
        return {name: value for name, value in super().envvars.items() if name in given or not name.startswith("PG")}

    def _prepare(self) -> None:
        super()._prepare()
        try:
            self._make_data_directory(self._until())
        except TimeoutError:
            self._heed_cancel()
            self._refusal = "another process was still making the template of the data directory"
            raise TimeoutExpired(self, self._timeout) from None
        except OSError as error:
            error.add_note(f"{self._who()} could not be started")
            raise

    def _make_data_directory(self, deadline: Deadline) -> None:
        if not self._keep:
            self.password = self._cluster.copy(self.data_directory, self._run_as_owner, deadline)
        else:
            kept, self.password = self._cluster.kept(self._keep, self._run_as_owner, deadline)
            if not os.path.islink(self.data_directory):
                os.symlink(kept, self.data_directory)
        # Left by one that was killed, whose number may be another's by now.
        DataDirectory(self.data_directory).forget_dead(deadline)
        with suppress(FileNotFoundError):
            os.unlink(f"{self.tmp}/.s.PGSQL.{self.port}.lock")

    def _run_as_owner(self, command: Sequence[str]) -> None:
        self._run(command, **self._as_owner)

    def _own_probe(self) -> Probe | None:
        data = None if self.existing else DataDirectory(self.data_directory)
        return PostgreSQLProbe(self.host, self.port, self._connect, data)

    def _claims(self) -> Iterator[Claim]:
        yield from super()._claims()
        if self._keep and not self.existing:
            yield DataDirectory(self.data_directory)


def _dropping(name: str) -> str:
    return f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)"
