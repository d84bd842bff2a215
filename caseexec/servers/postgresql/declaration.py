"""The declaration of a PostgreSQL."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from caseexec import memory
from caseexec.errors import DeclarationError
from caseexec.servers.base import Server
from caseexec.servers.postgresql.cluster import Cluster
from caseexec.servers.postgresql.executor import PostgreSQLExecutor
from caseexec.service import problems

__all__ = ["PostgreSQL"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# Debian's and Fedora's, Homebrew's (on Apple's processors, and on Intel's), and Postgres.app's.
_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# Whose it is when root runs the tests, as it refuses to be root's.
_ACCOUNTS = ("postgres", "nobody")
# Where initdb writes, who its superuser is, and that the socket asks for no password.
_DECIDED = re.compile(r"-[ADUWX]|--(auth|auth-local|pgdata|pwfile|pwprompt|username|waldir)(=|$)")


@dataclass(frozen=True, repr=False)
class PostgreSQL(Server[PostgreSQLExecutor]):
    """A PostgreSQL that is fast, as nothing has to outlive a crash of the machine, and listens on loopback only.

    It is ready when it answers a query. Its superuser is ``postgres``, with a password that is made up. Beside the port
    there is a Unix socket, in ``{tmp}``, that only this user can reach; that asks for no password. None of the user's
    configuration files, and no ``PG...`` variable, is read.

    On Linux, where 4 GiB of memory are free, and ``TMPDIR`` says nothing else, ``{tmp}`` and so the data are in memory
    (``/dev/shm``).

    ``initdb`` is run once for each version and its arguments; what it makes is kept in the user's cache
    (``~/.cache/caseexec``, or ``/var/tmp/caseexec-cache-<uid>``) and copied for each service.

    :param password: the superuser's.
    :param initdb: further arguments for ``initdb``, such as ``--locale=de_DE.UTF-8`` or ``--data-checksums``.
    :param user: the user that it runs as when root runs the tests; by default ``postgres``, or ``nobody``.
    :param keep: the name of a data directory that stays when the service ends, and is found again by the next of that
        name, of the same version; empty: a new one each time.
    """

    _: KW_ONLY
    stop_signal: int = signal.SIGINT  # A fast shutdown: SIGTERM's waits for the clients to go.
    password: str | None = field(default=None, repr=False)
    initdb: Sequence[str] = ()
    user: str = ""
    keep: str = ""

    programs = ("postgres",)
    arguments = ("-D", "{tmp}/data")
    defaults = {  # noqa: RUF012
        "listen_addresses": "{host}",
        "port": "{port}",
        "unix_socket_directories": "{tmp}",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        # {tmp} may be in memory, and a log of changes of a gigabyte, the server's own choice, is of no use to a test.
        "max_wal_size": "128MB",
        # Below {tmp}, and gone with it; a killed server would leave it in /dev/shm.
        "dynamic_shared_memory_type": "mmap",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    words = ("on", "off")
    packages = {  # noqa: RUF012
        "Debian, Ubuntu": "apt-get install postgresql",
        "Fedora": "dnf install postgresql-server",
        "macOS": "brew install postgresql@17",
    }
    own = {**Server.own, "data_directory": "keep"}  # noqa: RUF012
    runs_as = PostgreSQLExecutor
    offers = (*Server.offers, "dsn", "user", "password")

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        if isinstance(self.initdb, str) or not isinstance(self.initdb, Sequence):
            yield "initdb", f"{self.initdb!r} is no list of arguments: write ['--locale=C']"
        else:
            yield from problems.of_command("initdb", ["initdb", *self.initdb], shell=False)
            for argument in filter(_DECIDED.match, map(str, self.initdb)):
                yield "initdb", f"{argument!r} is decided already: leave it out"
        yield from problems.of_password("password", self.password)
        if not isinstance(self.user, str):
            yield "user", f"{self.user!r} is no name of a user"
        places = (self.options or {}).get("unix_socket_directories", "{tmp}")
        if "{tmp}" not in re.split(r"\s*,\s*", str(places)):
            yield "options", f"['unix_socket_directories'] must have {{tmp}} in it: write '{{tmp}}, {places}'"
        if not isinstance(self.keep, str) or not re.fullmatch(r"[\w.-]*", self.keep, re.ASCII):
            yield "keep", f"{self.keep!r} is no name of a directory: use letters, digits, '-', '_' and '.' only"

    def option(self, name: str, value: str) -> tuple[str, ...]:
        return "-c", f"{name}={value}"

    def scheme_name(self) -> str:
        return "postgresql"

    def places(self) -> Iterator[str]:
        asked = shutil.which("pg_config")
        if asked:
            with suppress(OSError):
                yield subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        for pattern in _PLACES:
            yield from sorted(glob.glob(pattern), key=_version, reverse=True)

    def tmp_owner(self) -> int | None:
        account = self._account()
        return account.pw_uid if account else None

    def tmp_parent(self) -> str | None:
        return None if self.keep else memory.place()

    def _account(self) -> pwd.struct_passwd | None:
        """The user that it runs as; ``None``: this one.

        :raises DeclarationError: there is none, or it is root.
        """
        if os.geteuid() != 0:
            return None
        for name in [self.user] if self.user else _ACCOUNTS:
            with suppress(KeyError):
                account = pwd.getpwnam(name)
                if account.pw_uid != 0:
                    return account
        told = f"{self.user!r} is root, or no user" if self.user else f"there is no user {' or '.join(_ACCOUNTS)}"
        raise DeclarationError(self.place("user"), f"{told}: name one, as PostgreSQL refuses to be run by root")

    def _given(self) -> dict[str, Any]:
        account = self._account()
        as_owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        return {"cluster": self._cluster(account.pw_uid if account else None), "keep": self.keep, "as_owner": as_owner}

    def _cluster(self, uid: int | None) -> Cluster:
        program = self.find_program() or ""
        beside = [os.path.join(os.path.dirname(path), "initdb") for path in (os.path.realpath(program), program)]
        initdb = next(filter(os.path.exists, beside), beside[-1])
        return Cluster(initdb, self.version() if program else "", tuple(self.initdb), self.password or "", uid)


def _version(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]
