"""As much of PostgreSQL's protocol as asks a few simple queries, so that no client is needed.

https://www.postgresql.org/docs/current/protocol.html, "Message Flow" and "Message Formats".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from caseexec.probes.wire import Wire
from caseexec.servers.base import ServerRefused

__all__ = ["Session", "identifier"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_VERSION = 3 << 16
_LONGEST_MESSAGE = 1 << 24
# What the server asks for, in its first answer.
_OK, _CLEARTEXT, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 10, 11, 12


def identifier(name: str) -> str:
    """A name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


class Session:
    """A session with a server, from the password on.

    :param wire: just connected.
    :ivar parameters: what the server tells of itself, as ``server_version``.
    :raises ServerRefused: it lets us not in.
    :raises OSError: it does not answer.
    """

    def __init__(self, wire: Wire, user: str, database: str, password: str = "") -> None:
        self.parameters: dict[str, str] = {}
        self._wire = wire
        named = {"user": user, "database": database, "client_encoding": "UTF8", "application_name": "caseexec"}
        told = b"".join(f"{name}\0{value}\0".encode() for name, value in named.items()) + b"\0"
        wire.sendall(struct.pack("!ii", len(told) + 8, _VERSION) + told)
        with self._errors():
            self._log_in(password)
            list(self._rows())

    def query(self, statement: str) -> list[tuple[str | None, ...]]:
        """The rows that a statement returns, as text.

        :raises ServerRefused: it is wrong, or can't be done.
        :raises OSError: there is no answer.
        """
        self._send(b"Q", statement.encode() + b"\0")
        with self._errors():
            return list(self._rows())

    def close(self) -> None:
        """Say good-bye."""
        try:
            self._send(b"X", b"")
        finally:
            self._wire.close()

    def _rows(self) -> Iterator[tuple[str | None, ...]]:
        """What comes until the server is ready for the next query."""
        while (message := self._message())[0] != b"Z":
            kind, body = message
            if kind == b"D":
                yield tuple(_columns(body))
            elif kind == b"S":
                name, value = body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (UnicodeDecodeError, ValueError, KeyError, IndexError, struct.error) as error:
            raise ServerRefused(f"it does not speak PostgreSQL's protocol ({type(error).__name__})") from error

    def _message(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!ci", self._wire.read(5))
        if not 4 <= length < _LONGEST_MESSAGE:
            raise ValueError(f"a message of {length} bytes")
        body = self._wire.read(length - 4)
        if kind == b"E":
            found = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
            raise ServerRefused(found.get(b"M", "an error without words"))
        return kind, body

    def _send(self, kind: bytes, body: bytes) -> None:
        self._wire.sendall(struct.pack("!ci", kind, len(body) + 4) + body)

    # -- the password --------------------------------------------------------------------------------------------------

    def _log_in(self, password: str) -> None:
        asked, data = self._asked()
        if asked == _CLEARTEXT:
            self._send(b"p", password.encode() + b"\0")
            asked, data = self._asked()
        elif asked == _SASL and b"SCRAM-SHA-256" in data.split(b"\0"):
            self._prove(password)
            asked, data = self._asked()
        if asked != _OK:
            raise ServerRefused(f"it wants a way to log in that is not known here ({asked})")

    def _asked(self) -> tuple[int, bytes]:
        kind, body = self._message()
        if kind != b"R":
            raise ValueError(f"a message {kind!r}")
        return struct.unpack("!i", body[:4])[0], body[4:]

    def _prove(self, password: str) -> None:
        """Show that one knows the password (SCRAM-SHA-256, RFC 5802 and RFC 7677)."""
        ours = f"n=,r={secrets.token_urlsafe(18)}"
        first = f"n,,{ours}".encode()
        self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
        asked, data = self._asked()
        if asked != _SASL_CONTINUE:
            raise ValueError(f"an answer {asked}")
        theirs = data.decode()
        told = dict(part.split("=", 1) for part in theirs.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", _prepared(password).encode(), base64.b64decode(told["s"]), int(told["i"])
        )
        key = _digest(salted, "Client Key")
        last = f"c=biws,r={told['r']}"
        signed = _digest(hashlib.sha256(key).digest(), f"{ours},{theirs},{last}")
        proof = bytes(one ^ other for one, other in zip(key, signed, strict=True))
        self._send(b"p", f"{last},p={base64.b64encode(proof).decode()}".encode())
        asked, _ = self._asked()
        if asked != _SASL_FINAL:
            raise ValueError(f"an answer {asked}")


def _prepared(password: str) -> str:
    """What is meant by a password, however its characters are composed (SASLprep, RFC 4013)."""
    kept = (character for character in password if not stringprep.in_table_b1(character))
    spaced = "".join(" " if stringprep.in_table_c12(character) else character for character in kept)
    return unicodedata.normalize("NFKC", spaced)


def _digest(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _columns(body: bytes) -> Iterator[str | None]:
    (count,), position = struct.unpack("!h", body[:2]), 2
    for _ in range(count):
        (length,) = struct.unpack("!i", body[position : position + 4])
        position += 4
        yield None if length < 0 else body[position : position + length].decode()
        position += max(0, length)
