"""Mixins that give a test class its service: started before its tests, gone after them.

They derive from :class:`unittest.TestCase`, so that a mixin named behind ``TestCase``, where Python would never call
it, is an error when the class is defined.
"""

from __future__ import annotations

import re
import sys
import unittest
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

from caseexec import service as declarations
from caseexec.errors import DeclarationError, LeakedProcessWarning, ServiceNotStarted
from caseexec.placeholders import nearest
from caseexec.scopes import Launch
from caseexec.service import Service

if TYPE_CHECKING:
    import os

    from caseexec.executors import (
        CommandExecutor,
        Executor,
        HTTPExecutor,
        OutputExecutor,
        PidExecutor,
        TCPExecutor,
        UnixSocketExecutor,
    )
    from caseexec.executors.command import Command
    from caseexec.probes import Probe

__all__ = [
    "CommandServiceMixin",
    "HTTPServiceMixin",
    "OutputServiceMixin",
    "PidServiceMixin",
    "ServiceMixin",
    "TCPServiceMixin",
    "UnixSocketServiceMixin",
]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_PREFIX = "service_"


class _NotStarted:
    """In the place of the service while there is none."""

    def __get__(self, instance: object, owner: type) -> None:
        raise _not_started(owner)


def _not_started(cls: type) -> ServiceNotStarted:
    overriding = next(base for base in cls.__mro__ if "setUpClass" in vars(base))
    return ServiceNotStarted(_label(cls), None if issubclass(ServiceMixin, overriding) else _label(overriding))


def _label(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class ServiceMixin(unittest.TestCase):
    """What all these mixins have in common; use one of its subclasses.

    The class attributes ``service_...`` declare the service: they are read, never written. In the command, the
    environment, the working directory, the stop command and the kind's own attributes, ``{host}``, ``{port}``,
    ``{address}`` (``host:port``), ``{url}``, ``{tmp}`` (a directory of its own, mode 0700) and ``{python}`` (the
    running interpreter) are filled in. Other braces stay as they are; ``{{name}}`` stands for ``{name}``.

    ``setUpClass`` starts the service and waits until it is ready, then calls ``super().setUpClass()``;
    ``tearDownClass`` does the reverse. A class that overrides one of them calls ``super()``'s.

    :cvar service: the running service.
    :cvar service_command: what to run, a string (split as a shell would) or a list.
    :cvar service_host: the address it listens on; by default 127.0.0.1.
    :cvar service_port: the port it listens on; 0, the default, leases a free one.
    :cvar service_env: environment variables on top of the present ones.
    :cvar service_cwd: the directory to run it in; by default the one that the tests are run in.
    :cvar service_shell: let ``/bin/sh`` run the command; what is filled in is quoted then.
    :cvar service_start_timeout: seconds until it must be ready, by default 30; ``None``: no limit.
    :cvar service_stop_timeout: seconds until it must have ended, by default 10; then it is killed.
    :cvar service_stop_signal: asks it to end; SIGTERM by default.
    :cvar service_kill_signal: ends it when it did not; SIGKILL by default.
    :cvar service_stop_command: run first when it is stopped (``docker rm -f name``), within the time of the stop.
    :cvar service_expected_returncode: the exit status that is right when it was stopped, beside 0.
    :cvar service_daemonizes: it goes to the background by itself and leaves no trace; it is run below a supervisor that
        no descendant can leave.
    :cvar service_probe: a further probe, or a function that is called with the executor; all must hold.
    :cvar service_listener: ``"ours"``, the default: a stranger on our port is an error; ``"any"``: whoever listens may
        answer.
    """

    service: ClassVar[Executor] = cast("Executor", _NotStarted())

    service_command: ClassVar[Command | None] = Service.command
    service_host: ClassVar[str] = Service.host
    service_port: ClassVar[int | None] = Service.port
    service_env: ClassVar[Mapping[str, str] | None] = Service.env
    service_cwd: ClassVar[str | os.PathLike[str] | None] = Service.cwd
    service_shell: ClassVar[bool] = Service.shell
    service_start_timeout: ClassVar[float | None] = Service.start_timeout
    service_stop_timeout: ClassVar[float | None] = Service.stop_timeout
    service_stop_signal: ClassVar[int] = Service.stop_signal
    service_kill_signal: ClassVar[int | None] = Service.kill_signal
    service_stop_command: ClassVar[Command | None] = Service.stop_command
    service_expected_returncode: ClassVar[int | None] = Service.expected_returncode
    service_daemonizes: ClassVar[bool] = Service.daemonizes
    service_probe: ClassVar[Probe | Callable[..., object] | None] = Service.probe
    service_listener: ClassVar[str] = Service.listener

    _service_kind: ClassVar[type[Service]] = Service
    _service_launch: ClassVar[Launch]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._check_service_names()
        if cls.service_command is not None and cls._service_kind is not Service:
            cls._service_declaration()

    @classmethod
    def _check_service_names(cls) -> None:
        options = {_PREFIX + option.name for option in fields(cls._service_kind) if option.name != "where"}
        for name, value in vars(cls).items():
            if not name.startswith(_PREFIX) or name in options:
                continue
            # Methods of one's own may be called service_something, as long as they are no misspelt attribute.
            if not callable(getattr(value, "__func__", value)) and not isinstance(value, property):
                raise DeclarationError(f"{_label(cls)}.{name}", cls._unknown(name, options))

    @classmethod
    def _unknown(cls, name: str, options: set[str]) -> str:
        mixin = f"{cls._service_kind.__name__}Mixin"
        others = [kind.__name__ for kind in ServiceMixin.__subclasses__() if name in vars(kind)]
        if others:
            return f"{mixin} has no such attribute, it belongs to {' and '.join(others)}"
        return f"{mixin} has no such attribute{nearest(name, options) or ': ' + ', '.join(sorted(options))}"

    @classmethod
    def _service_declaration(cls) -> Service:
        options = [option.name for option in fields(cls._service_kind) if option.name != "where"]
        # vars() of each class in turn, as a function for service_probe must not become a method.
        given = {name: _raw(cls, _PREFIX + name) for name in options}
        return cls._service_kind(**given, where=f"{_label(cls)}.{_PREFIX}")

    @classmethod
    def setUpClass(cls) -> None:
        """Start the service and wait until it is ready; then ``super().setUpClass()``."""
        launch = Launch(cls._service_declaration(), _label(cls))
        cls._service_launch = launch
        cls.addClassCleanup(cls._end_leaked_service, launch)
        cls.service = launch.start()
        try:
            super().setUpClass()
        except BaseException:
            # After a KeyboardInterrupt or SystemExit no class cleanup is run.
            cls._forget_service()
            launch.discard()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        """``super().tearDownClass()``; then stop the service."""
        try:
            super().tearDownClass()
        finally:
            cls._forget_service()
            if "_service_launch" in vars(cls):  # Else a setUpClass without super(), which each test has told of.
                cls._service_launch.stop()

    @classmethod
    def _forget_service(cls) -> None:
        if "service" in vars(cls):
            del cls.service

    @classmethod
    def _end_leaked_service(cls, launch: Launch) -> None:
        cls._forget_service()
        command = launch.executor.command if launch.executor else ""
        # unittest notes the failure on the class; pytest cleans up while it handles it.
        failed = getattr(cls, "_classSetupFailed", False) or sys.exc_info()[0] is not None
        left = launch.discard()
        if left:
            why = (
                "setUpClass failed after the service had started"
                if failed
                else "tearDownClass did not stop it: does it call super().tearDownClass()?"
            )
            warnings.warn(LeakedProcessWarning(_label(cls), command, left, why), stacklevel=2)

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test; without its service it is an error."""
        if "service" not in vars(type(self)):
            # In place of setUp, and not of the test: a skipped one stays skipped.
            self.setUp = self._service_missing  # type: ignore[method-assign]
        return super().run(result)

    def _service_missing(self) -> None:
        raise _not_started(type(self))


def _raw(cls: type, name: str) -> Any:
    value = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    return value.__get__(None, cls) if isinstance(value, (classmethod, staticmethod)) else value


class TCPServiceMixin(ServiceMixin):
    """A service that is ready when it accepts TCP connections on its host and port."""

    _service_kind = declarations.TCPService
    service: ClassVar[TCPExecutor]


class HTTPServiceMixin(ServiceMixin):
    """A service that is ready when it answers an HTTP request.

    :cvar service_path: what is asked for, with its query string; by default ``/``.
    :cvar service_scheme: ``http``, the default, or ``https`` (the certificate is not verified).
    :cvar service_method: the request's method; GET by default.
    :cvar service_status: the right status code, or a regular expression that matches it; by default any 2xx.
    :cvar service_headers: the request's headers.
    """

    _service_kind = declarations.HTTPService
    service: ClassVar[HTTPExecutor]
    service_path: ClassVar[str] = declarations.HTTPService.path
    service_scheme: ClassVar[str] = declarations.HTTPService.scheme
    service_method: ClassVar[str] = declarations.HTTPService.method
    service_status: ClassVar[str | int] = declarations.HTTPService.status
    service_headers: ClassVar[Mapping[str, str] | None] = declarations.HTTPService.headers


class OutputServiceMixin(ServiceMixin):
    """A service that is ready when it has written something.

    :cvar service_banner: a regular expression that its output matches then.
    """

    _service_kind = declarations.OutputService
    service: ClassVar[OutputExecutor]
    service_banner: ClassVar[str | re.Pattern[str]] = declarations.OutputService.banner


class UnixSocketServiceMixin(ServiceMixin):
    """A service that is ready when it accepts connections on a Unix socket.

    :cvar service_socket: the socket's path, such as ``{tmp}/service.sock``.
    """

    _service_kind = declarations.UnixSocketService
    service: ClassVar[UnixSocketExecutor]
    service_socket: ClassVar[str] = declarations.UnixSocketService.socket


class PidServiceMixin(ServiceMixin):
    """A service that is ready when it has written its pid file.

    :cvar service_pid_file: the file's path, such as ``{tmp}/service.pid``.
    """

    _service_kind = declarations.PidService
    service: ClassVar[PidExecutor]
    service_pid_file: ClassVar[str] = declarations.PidService.pid_file


class CommandServiceMixin(ServiceMixin):
    """A service that is ready when a check command ends with status 0.

    :cvar service_check: the command, such as ``pg_isready -h {host} -p {port}``.
    """

    _service_kind = declarations.CommandService
    service: ClassVar[CommandExecutor]
    service_check: ClassVar[Command] = declarations.CommandService.check
