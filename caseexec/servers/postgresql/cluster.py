"""A data directory: made once, and then copied.

``initdb`` takes half a second, and what it makes is the same each time: a template of it is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from caseexec import cache
from caseexec.deadline import Deadline
from caseexec.errors import PreparationFailed

__all__ = ["SUPERUSER", "Cluster"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

SUPERUSER = "postgres"
"""The name of the server's superuser."""

# One that knows all letters, and sorts them by their code points; where the system has none, that of ASCII.
_LOCALES = ("C.UTF-8", "C")
# What listens on the network asks everybody for the password, as also other users of the machine can reach it; the
# socket is in a directory that only one user can enter.
_ARGUMENTS = (
    "--username", SUPERUSER, "--auth-local", "trust", "--auth-host", "scram-sha-256", "--encoding", "UTF8",
    "--text-search-config", "english", "--wal-segsize", "1",
)  # fmt: skip


# A thousand files: several directories at once take a third of the time. It has its name when it is whole.
_COPY = """
umask 077; cd "$1" && rm -rf "$2.new" && mkdir "$2.new" "$2.new/base" || exit
copies=
for part in base/*; do
    cp -R "$part" "$2.new/base" & copies="$copies $!"
done
for part in *; do
    [ "$part" = base ] || cp -R "$part" "$2.new" || exit
done
for copy in $copies; do
    wait "$copy" || exit
done
mv "$2.new" "$2"
"""


class Helper(Protocol):
    """Runs a command, as the owner of the data directories."""

    def __call__(self, command: Sequence[str], /) -> None:
        """Run it to its end.

        :raises PreparationFailed: it did not end well.
        """


@dataclass(frozen=True)
class Cluster:
    """What a data directory is made with.

    :ivar initdb: the path of that program.
    :ivar version: its version.
    :ivar arguments: further ones for it.
    :ivar password: the superuser's; empty: one is made up.
    :ivar uid: the user id whose the data directories are; ``None``: this user's.
    """

    initdb: str
    version: str
    arguments: tuple[str, ...]
    password: str
    uid: int | None

    def copy(self, data: str, run: Helper, deadline: Deadline) -> str:
        """Make a data directory, unless it is there already: then it stays as it is.

        :returns: the superuser's password.
        """
        template = cache.entry(f"postgresql-{self._key}", lambda path: self._make(path, run), deadline, uid=self.uid)
        if not os.path.isdir(data):
            run(["sh", "-c", _COPY, "cp", os.path.join(template, "data"), data])
        return _password_in(template)

    def kept(self, name: str, run: Helper, deadline: Deadline) -> tuple[str, str]:
        """The data directory of that name, which stays; it is made if there is none.

        :returns: its path, and the superuser's password.
        """

        def make(path: str) -> None:
            self._write_password(path, self.copy(os.path.join(path, "data"), run, deadline))

        path = cache.entry(f"kept-postgresql-{name}-{self._key}", make, deadline, uid=self.uid, lasts=True)
        return os.path.join(path, "data"), _password_in(path)

    @property
    def _key(self) -> str:
        about = (_LOCALES, _ARGUMENTS, self.initdb, platform.machine(), self.arguments, self.password)
        return f"{self.version}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}"

    def _make(self, path: str, run: Helper) -> None:
        password = self._write_password(path, self.password or secrets.token_urlsafe(18))
        command = [self.initdb, "-D", os.path.join(path, "data"), "--pwfile", password, *_ARGUMENTS]
        for locale in _LOCALES:
            try:
                run([*command, "--locale", locale, *self.arguments])
                return
            except PreparationFailed as error:
                if locale == _LOCALES[-1] or "invalid locale" not in error.facts.output:
                    raise

    def _write_password(self, path: str, password: str) -> str:
        file = os.path.join(path, "password")
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as written:
            written.write(password)
            if self.uid is not None:
                os.chown(descriptor, self.uid, -1)
            written.flush()
            os.fsync(written.fileno())  # As initdb does with its own files: a template outlives a power cut.
        return file


def _password_in(path: str) -> str:
    with open(os.path.join(path, "password"), encoding="utf-8") as file:
        return file.read()
