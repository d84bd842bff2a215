"""Settings that are changed for a whole run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import UserSettingsHolder, settings
from django.db import connections
from django.test import override_settings

__all__ = ["applied", "cover"]


@contextmanager
def applied(changed: Mapping[str, Any]) -> Iterator[None]:
    """Change settings for the block, ``DATABASES`` too: connections that were made are closed, and made anew."""
    others = {name: value for name, value in changed.items() if name != "DATABASES"}
    with override_settings(**others):
        if "DATABASES" not in changed:
            yield
            return
        before = settings._wrapped
        _close_connections()
        # As override_settings does, which would warn, and leave the connections as they are.
        cover({"DATABASES": changed["DATABASES"]})
        _renew_connections()
        try:
            yield
        finally:
            _close_connections()
            settings._wrapped = before
            _renew_connections()


def cover(changed: Mapping[str, Any]) -> None:
    """Change settings for good, and tell nobody: nothing must have been made of them yet."""
    _ = settings.DEBUG  # They are read when one is asked for.
    cover = UserSettingsHolder(settings._wrapped)
    for name, value in changed.items():
        setattr(cover, name, value)
    settings._wrapped = cover


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()
        if connection.connection is not None:  # One of SQLite's in memory is left open by that.
            connection.connection.close()
        del connections[connection.alias]


def _renew_connections() -> None:
    connections._settings = None  # type: ignore[attr-defined]
    del connections.settings
    _ = connections.settings
