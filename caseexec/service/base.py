"""What all kinds of services have in common."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from caseexec import ports
from caseexec.errors import DeclarationError
from caseexec.executors import Declared, Executor
from caseexec.executors.command import START_TIMEOUT, STOP_TIMEOUT
from caseexec.placeholders import OF_CLASS, fill, fill_command, names, nearest
from caseexec.probes import Probe
from caseexec.service import problems
from caseexec.service.programs import find_program

__all__ = ["SCOPES", "Command", "Service"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

Command = str | Sequence[str | os.PathLike[str]]
"""What a declaration can run: a string that is split, or a sequence."""

SCOPES = problems.CHOICES["scope"]
"""Who shares a running service, from the narrowest to the widest."""

Running = TypeVar("Running", bound=Executor, covariant=True)


@dataclass(frozen=True, repr=False)
class Service(Generic[Running]):
    """What all kinds of services have in common.

    As an attribute of a test class with :class:`caseexec.ServicesMixin` it is the running executor while there is one.

    :param command: what to run, a string or a sequence.
    :param host: the address it listens on.
    :param port: the port it listens on; 0: a free one is leased.
    :param env: environment variables on top of the present ones.
    :param cwd: the directory to run it in.
    :param shell: let ``/bin/sh`` run the command.
    :param start_timeout: seconds until it must be ready.
    :param stop_timeout: seconds until it must have ended; then it is killed.
    :param stop_signal: asks it to end.
    :param kill_signal: ends it when it did not.
    :param stop_command: run first when it is stopped.
    :param expected_returncode: the exit status that is right when it was stopped, beside 0.
    :param daemonizes: run it below a supervisor that no descendant can leave.
    :param probe: a further probe, or a function that is called with the executor; all must hold.
    :param listener: ``"ours"``, or ``"any"``: whoever listens may answer.
    :param port_pattern: for a service that chooses its port by itself and writes that: a regular expression whose first
        group is the port (``listening on .*:(\\d+)``).
    :param if_missing: ``"error"``, or ``"skip"``: where the program is not installed the tests are skipped, unless
        ``CASEEXEC_REQUIRE`` is ``1``.
    :param after: the services, or their attributes' names, that must be ready before this one starts; those that a
        placeholder such as ``{redis.port}`` names need not be in here.
    :param scope: who shares it: ``"test"``: each test has one of its own; ``"class"``; ``"module"`` and ``"session"``:
        all classes of the module, or of the run, that declare an equal one.
    :param restart: ``"never"``: one that died is an error; ``"on_crash"``: it is started again before the next test;
        ``"test"``: it is started anew for each test.
    :param reset: a function that is called with the executor before each test, as to empty a database; or ``True``: a
        ready-made service empties itself.
    :raises DeclarationError: a value that cannot be right.
    """

    command: Command | None = None
    _: KW_ONLY
    host: str = "127.0.0.1"
    port: int | None = 0
    env: Mapping[str, str] | None = None
    cwd: str | os.PathLike[str] | None = None
    shell: bool = False
    start_timeout: float | None = START_TIMEOUT
    stop_timeout: float | None = STOP_TIMEOUT
    stop_signal: int = signal.SIGTERM
    kill_signal: int | None = None
    stop_command: Command | None = None
    expected_returncode: int | None = None
    daemonizes: bool = False
    probe: Probe | Callable[[Any], object] | None = None
    listener: str = "ours"
    port_pattern: str | re.Pattern[str] | None = None
    if_missing: str = "error"
    after: Sequence[Service[Any] | str] = ()
    scope: str = "class"
    restart: str = "never"
    reset: Callable[[Any], object] | bool | None = None
    #: What errors put before the name of an option.
    where: str = field(default="", repr=False, compare=False)

    #: The options in which placeholders are filled, beside the command.
    templates: ClassVar[tuple[str, ...]] = ("env", "cwd", "stop_command")
    #: The options that are paths.
    paths: ClassVar[tuple[str, ...]] = ("cwd",)
    #: The option that says when this kind is ready; it must not be empty.
    needed: ClassVar[str] = ""
    needs_port: ClassVar[bool] = False
    #: The options that are commands without which it can't start.
    runs: ClassVar[tuple[str, ...]] = ("command",)
    #: Whether it runs until it is stopped.
    keeps_running: ClassVar[bool] = True
    #: What other services' placeholders can ask of it, when it runs.
    offers: ClassVar[tuple[str, ...]] = ("host", "port", "address", "url", "tmp")
    #: Those that it can only tell when it has a port.
    of_port: ClassVar[tuple[str, ...]] = ("port", "address", "url")

    if not TYPE_CHECKING:  # For a type checker the options are those of __init__.

        def __new__(cls, *args: Any, **options: Any) -> Self:
            """Tell of an option that there is not, in words."""
            cls._check_names(options)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        for option, problem in self._problems():
            raise DeclarationError(self.place(option), problem)
        for each in fields(self):  # What it was made of may be changed by whoever made it.
            given = getattr(self, each.name)
            if isinstance(given, (list, dict)):
                object.__setattr__(self, each.name, tuple(given) if isinstance(given, list) else dict(given))

    def __get__(self, instance: object, owner: type) -> Running:
        """The running executor; in a class body, and in a class that is no test class, the declaration itself.

        :raises ServiceNotStarted: there is none now.
        """
        running = getattr(owner, "_running_service", None)
        if running is not None:
            return running(self)  # type: ignore[no-any-return]
        if hasattr(owner, "setUpClass"):
            label = f"{owner.__module__}.{owner.__qualname__}"
            problem = (
                f"nothing starts it, as {owner.__name__} does not derive from caseexec.ServicesMixin; name that first"
            )
            raise DeclarationError(label, f"it declares a {type(self).__name__}, but {problem} among its bases")
        return self  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        if name in self.offers or name in ("pid", "stop", "start", "restart", "tail", "output_mark"):
            where = f"self.{self.where.rstrip('.').rpartition('.')[2] or 'name'}.{name}"
            way_out = f"use {where} in a test, or a placeholder such as {{name.{name}}} in another declaration"
            raise AttributeError(f"{type(self).__name__}.{name} is not known before the service runs: {way_out}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        given = [each for each in fields(self) if each.repr and each.name != "command"]
        changed = [each.name for each in given if getattr(self, each.name) != getattr(type(self), each.name, None)]
        options = "".join(f", {name}={getattr(self, name)!r}" for name in changed if name != "env")  # That is private.
        return f"{type(self).__name__}({self.command!r}{options})"

    def place(self, option: str) -> str:
        """What errors call an option."""
        return f"{self.where or type(self).__name__ + '.'}{option}"

    def replace(self, **options: Any) -> Self:
        """A declaration like this one, with other options.

        :raises DeclarationError: an option that there is not, or a value that cannot be right.
        """
        self._check_names(options)
        return dataclasses.replace(self, **options)

    @classmethod
    def _check_names(cls, options: Iterable[str]) -> None:
        for option in options:
            if option not in cls.__dataclass_fields__:
                known = [each.name for each in fields(cls) if each.name != "where"]
                meant = option.removeprefix("service_")
                hint = f"; did you mean {meant}?" if meant in known else nearest(option, known)
                problem = f"there is no such option{hint or ': there are ' + ', '.join(known)}"
                raise DeclarationError(f"{cls.__name__}.{option}", problem)

    def _problems(self) -> Iterator[tuple[str, str]]:
        """What cannot be right: the option, and what is wrong with it."""
        yield from problems.of_command("command", self.command, self.shell)
        if self.stop_command is not None:
            yield from problems.of_command("stop_command", self.stop_command, self.shell)
        yield from problems.of_strings("env", self.env)
        for option in ("command", *self.templates):
            yield from problems.of_placeholders(option, getattr(self, option))
        if self.port_pattern is None:
            yield from problems.of_port(self.port, needed=self.needs_port, used=self._uses_port())
        else:
            yield from problems.of_port_pattern(self.port_pattern, self.port, used=self._uses_port())
        for option in ("start_timeout", "stop_timeout"):
            yield from problems.of_seconds(option, getattr(self, option))
        yield from problems.of_signal("stop_signal", self.stop_signal)
        if self.kill_signal is not None:
            yield from problems.of_signal("kill_signal", self.kill_signal)
        for option in self.paths:
            yield from problems.of_path(option, getattr(self, option))
        if not isinstance(self.host, str) or not self.host:
            yield "host", f"{self.host!r} is no address: write a string such as 127.0.0.1"
        yield from problems.of_others(self.expected_returncode, self.daemonizes, self.probe)
        yield from problems.of_choices(self)
        yield from problems.of_sharing(self.after, self.reset)
        if self.needed and not getattr(self, self.needed):
            yield self.needed, f"it is not set: {problems.NEEDED[self.needed]}"

    def missing(self) -> Iterator[tuple[str, str]]:
        """The programs that are not installed, as far as that can be told before the start: the option, and that."""
        for option in self.runs:
            program, path = find_program(getattr(self, option), self.shell, self.cwd, self.env)
            if path is None:
                yield option, f"there is no program {program!r}"

    def placeholders(self) -> Iterator[tuple[str, str]]:
        """The placeholders in it: the option, and the name."""
        for option in ("command", *self.templates):
            for name in names(getattr(self, option)):
                yield option, name

    def of_class(self) -> list[tuple[str, str]]:
        """Those of its placeholders that its test class knows when its set-up is done: the option, and the name."""
        return [(option, name) for option, name in self.placeholders() if name in OF_CLASS]

    def _uses_port(self) -> bool:
        return not {name for _, name in self.placeholders()}.isdisjoint({"port", "address", "url"})

    def has_port(self) -> bool:
        """Whether it has a port when it runs."""
        used = self.needs_port or self._uses_port() or self.port_pattern is not None
        return self.port is not None and (self.port != 0 or used)

    def scheme_name(self) -> str:
        """The scheme of ``{url}``."""
        return "tcp"

    def values(self, port: int | None, tmp: str) -> dict[str, str]:
        """What the placeholders stand for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        address = f"{host}:{port}" if port else ""
        url = f"{self.scheme_name()}://{address}"
        return {"host": self.host, "port": str(port or ""), "address": address, "url": url,
                "tmp": tmp, "python": sys.executable}  # fmt: skip

    def tmp_owner(self) -> int | None:
        """The user id whose ``{tmp}`` is; ``None``: this process's own."""
        return None

    def tmp_parent(self) -> str | None:
        """Where ``{tmp}`` is made; ``None``: where temporary files are."""
        return None

    def lease(self) -> int | None:
        """The port for one start: the given one, a leased one, or ``None`` when it uses none, or chooses its own."""
        if not self.has_port() or self.port_pattern is not None:
            return None
        return self.port or self._free_port()

    def _free_port(self) -> int:
        try:
            return ports.free_port(self.host)
        except OSError as error:
            problem = f"no port can be leased on {self.host!r}: {error.strerror or error}"
            raise DeclarationError(self.place("host"), problem) from None

    def executor(self, declared: Declared) -> Running:
        """An executor, not started."""
        # Of its own choice nothing is filled in; an executor only wants some port, until it knows better.
        values = {**declared.others, **self.values(1 if self.port_pattern else declared.port, declared.tmp)}
        assert self.command is not None
        executor = self._make(
            fill_command(self.command, values, self.shell),
            values,
            cwd=None if self.cwd is None else fill(os.fspath(self.cwd), values),
            shell=self.shell,
            timeout=self.start_timeout,
            stop_timeout=self.stop_timeout,
            stop_signal=self.stop_signal,
            kill_signal=self.kill_signal,
            stop_command=self.stop_command and fill_command(self.stop_command, values, self.shell),
            expected_returncode=self.expected_returncode,
            daemonizes=self.daemonizes,
            envvars={variable: fill(text, values) for variable, text in (self.env or {}).items()},
            stderr=subprocess.STDOUT,  # In one log, in the order in which things were said.
            probe=self.probe,
            listener=self.listener,
            port_pattern=self.port_pattern,
            name=declared.who,
        )
        executor.belongs_to_service(dataclasses.replace(declared, where=self.place("")), self.host)
        return executor

    def offered(self, name: str, executor: Executor) -> dict[str, str]:
        """What the placeholders of others stand for that name it, when it runs."""
        return {f"{name}.{fact}": str(getattr(executor, fact)) for fact in self.offers}

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> Running:
        raise NotImplementedError(f"{type(self).__name__} is no kind of service, only the base of all kinds")
