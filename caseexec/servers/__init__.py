"""Ready-made services: real servers, with options that are safe and fast for tests.

Each is a declaration like those of :mod:`caseexec.service`, and can be what they can be: an attribute of a test class,
of any scope, named by the placeholders of others. Its command is its own.
"""

from __future__ import annotations

from caseexec.servers.base import Server, ServerExecutor, ServerRefused
from caseexec.servers.postgresql import Database, PostgreSQL, PostgreSQLExecutor
from caseexec.servers.redis import Redis, RedisExecutor

__all__ = [
    "Database",
    "PostgreSQL",
    "PostgreSQLExecutor",
    "Redis",
    "RedisExecutor",
    "Server",
    "ServerExecutor",
    "ServerRefused",
]
