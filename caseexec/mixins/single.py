"""Mixins for a test class with one service, whose options are attributes of the class."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

from caseexec import service as declarations
from caseexec.errors import DeclarationError
from caseexec.mixins.base import ServicesMixin, label
from caseexec.placeholders import nearest
from caseexec.service import Command, Plan, Service

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


class _TheService:
    """The attribute ``service``, whose declaration is made of others."""

    def __get__(self, instance: object, owner: type[ServicesMixin]) -> Executor:
        return owner._service_named("service")


class ServiceMixin(ServicesMixin):
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
    :cvar service_port_pattern: for one that chooses its port and writes that: a regular expression, whose first group
        is the port.
    :cvar service_if_missing: ``"error"``, the default, or ``"skip"``: where the program is not installed the tests are
        skipped, unless ``CASEEXEC_REQUIRE`` is ``1``.
    :cvar service_after: other services of the class that must be ready before this one starts.
    :cvar service_scope: ``"test"``, ``"class"`` (the default), ``"module"`` or ``"session"``: who shares it.
    :cvar service_restart: ``"never"``, the default: one that died is an error; ``"on_crash"``: it is started again
        before the next test; ``"test"``: it is started anew for each test.
    :cvar service_reset: a function that is called with the executor before each test.
    """

    service: ClassVar[Executor] = cast("Executor", _TheService())

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
    service_port_pattern: ClassVar[str | re.Pattern[str] | None] = Service.port_pattern
    service_if_missing: ClassVar[str] = Service.if_missing
    service_after: ClassVar[Sequence[Service[Any] | str]] = Service.after
    service_scope: ClassVar[str] = Service.scope
    service_restart: ClassVar[str] = Service.restart
    service_reset: ClassVar[Callable[..., object] | bool | None] = Service.reset

    _service_kind: ClassVar[type[Service[Any]]] = Service
    _nameless_service = "service"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        kinds = [base for base in cls.__mro__ if vars(base).get("_service_kind", Service) is not Service]
        if len(kinds) > 1:
            mixins = " and ".join(kind.__name__ for kind in kinds)
            raise DeclarationError(label(cls), f"{mixins} have one service each, called 'service': declare the others")
        super().__init_subclass__(**kwargs)

    @classmethod
    def _check_attributes(cls) -> None:
        if isinstance(vars(cls).get("service"), Service):
            problem = (
                f"with {cls._service_kind.__name__}Mixin it is made of the attributes service_...: rename this one"
            )
            raise DeclarationError(f"{label(cls)}.service", problem)
        options = {_PREFIX + option.name for option in fields(cls._service_kind) if option.name != "where"}
        for name, value in vars(cls).items():
            if not name.startswith(_PREFIX) or name in options:
                continue
            # Methods of one's own may be called service_something, as long as they are no misspelt attribute.
            if not callable(getattr(value, "__func__", value)) and not isinstance(value, property):
                raise DeclarationError(f"{label(cls)}.{name}", cls._unknown(name, options))

    @classmethod
    def _unknown(cls, name: str, options: set[str]) -> str:
        mixin = f"{cls._service_kind.__name__}Mixin"
        others = [kind.__name__ for kind in ServiceMixin.__subclasses__() if name in vars(kind)]
        if others:
            return f"{mixin} has no such attribute, it belongs to {' and '.join(others)}"
        return f"{mixin} has no such attribute{nearest(name, options) or ': ' + ', '.join(sorted(options))}"

    @classmethod
    def _service_declaration(cls) -> Service[Any]:
        options = [option.name for option in fields(cls._service_kind) if option.name != "where"]
        # vars() of each class in turn, as a function for service_probe must not become a method.
        given = {name: _raw(cls, _PREFIX + name) for name in options}
        return cls._service_kind(**given, where=f"{label(cls)}.{_PREFIX}")

    @classmethod
    def service_declarations(cls) -> dict[str, Service[Any]]:
        """The services of this class by attribute: ``service``, and those that are declared beside it."""
        found = super().service_declarations()
        if cls.service_command is not None and cls._service_kind is not Service:
            found["service"] = cls._service_declaration()
        return found

    @classmethod
    def _place(cls, name: str) -> str:
        return f"{label(cls)}.{_PREFIX}" if name == "service" else super()._place(name)

    @classmethod
    def _final_service_plan(cls) -> Plan:
        cls._service_declaration()  # A class without a command can be a base, but not be run.
        return super()._final_service_plan()


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
    service_socket: ClassVar[str | os.PathLike[str]] = declarations.UnixSocketService.socket


class PidServiceMixin(ServiceMixin):
    """A service that is ready when it has written its pid file.

    :cvar service_pid_file: the file's path, such as ``{tmp}/service.pid``.
    """

    _service_kind = declarations.PidService
    service: ClassVar[PidExecutor]
    service_pid_file: ClassVar[str | os.PathLike[str]] = declarations.PidService.pid_file


class CommandServiceMixin(ServiceMixin):
    """A service that is ready when a check command ends with status 0.

    :cvar service_check: the command, such as ``pg_isready -h {host} -p {port}``.
    """

    _service_kind = declarations.CommandService
    service: ClassVar[CommandExecutor]
    service_check: ClassVar[Command] = declarations.CommandService.check
