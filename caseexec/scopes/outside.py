"""What the environment of a run says of its services: that one is there already, or that none may be missing."""

from __future__ import annotations

import os
import unittest
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from caseexec.errors import DeclarationError
from caseexec.service import Service, UnixSocketService

__all__ = ["REQUIRE", "Existing", "existing", "skip_if_missing"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

REQUIRE = "CASEEXEC_REQUIRE"
"""The environment variable that makes an error of every skip for want of a program, unless it is empty or ``0``."""

_USE = "CASEEXEC_USE_"


class Existing(NamedTuple):
    """A service that was not started by us.

    :ivar service: the declaration, with the place where that one is.
    :ivar by: the environment variable that says so, and its value.
    """

    service: Service[Any]
    by: str


def existing(service: Service[Any], name: str) -> Existing | None:
    """The service that ``CASEEXEC_USE_<NAME>`` names, to be used in place of one that is started.

    :raises DeclarationError: what it says is no address.
    """
    variable = _USE + name.upper()
    value = os.environ.get(variable, "")
    if not value:
        return None
    if not service.keeps_running:
        problem = f"a {type(service).__name__} does its work and ends, so that none can be there already: unset it"
        raise DeclarationError(variable, problem)
    place: dict[str, Any] = {"socket": value} if isinstance(service, UnixSocketService) else _address(variable, value)
    there = service.replace(**place, port_pattern=None, listener="any")
    return Existing(there, f"{variable}={value}")


def _address(variable: str, value: str) -> dict[str, Any]:
    try:
        parts = urlsplit(f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path:
        raise DeclarationError(variable, f"{value!r} is no address: write host:port, such as 127.0.0.1:6379")
    return {"host": host, "port": port}


def skip_if_missing(services: Mapping[str, Service[Any]]) -> None:
    """Skip the tests when a program is not installed without which they are to be skipped.

    :param services: the declarations by name.
    :raises unittest.SkipTest: so it is.
    """
    for name, service in services.items():
        if service.if_missing != "skip" or os.environ.get(REQUIRE, "0") not in ("", "0") or existing(service, name):
            continue
        for option, problem in service.missing():
            raise unittest.SkipTest(f"{service.place(option)}: {problem} ({REQUIRE}=1 makes that an error)")
