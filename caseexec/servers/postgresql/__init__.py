"""PostgreSQL."""

from __future__ import annotations

from caseexec.servers.postgresql.database import Database
from caseexec.servers.postgresql.declaration import PostgreSQL
from caseexec.servers.postgresql.executor import PostgreSQLExecutor

__all__ = ["Database", "PostgreSQL", "PostgreSQLExecutor"]
