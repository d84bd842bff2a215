"""What the ready-made services have in common.

Each is a module of its own with two classes: a declaration, a :class:`Server`, that says what is run and how it is
installed; and an executor, a :class:`ServerExecutor`, that knows when it is ready, and tells clients how to reach it.
``redis.py`` is the one to copy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from caseexec import registry
from caseexec.errors import CommandNotFound, DeclarationError, PreparationFailed
from caseexec.executors import TCPExecutor
from caseexec.service import Command, Service, problems
from caseexec.service.programs import search_path

__all__ = ["Server", "ServerExecutor", "ServerRefused"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# With less space than that, a disk is full (bytes).
_LEAST = 1 << 16
_VERSION = re.compile(r"\d+(\.\d+)*")


class ServerRefused(OSError):
    """A server has answered that it can't, or won't."""


class ServerExecutor(TCPExecutor):
    """A running ready-made service.

    :param server: its declaration.
    """

    #: The setting of Django that has an entry for each such service; empty: there is none.
    django_setting: ClassVar[str] = ""

    def __init__(self, server: Server[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server = server

    def env(self) -> dict[str, str]:
        """The environment variables by which clients find it, and can do without arguments."""
        raise NotImplementedError

    def reset(self) -> None:
        """Make it as empty as it was when it had just started.

        :raises OSError: it does not answer, or refuses.
        """
        raise NotImplementedError

    def version(self) -> str:
        """The version of the running server, such as ``7.0.15``.

        :raises OSError: it does not answer, or refuses.
        """
        raise NotImplementedError

    def django_settings(self) -> dict[str, Any]:
        """An entry of that setting of Django which :attr:`django_setting` names."""
        raise NotImplementedError

    def _prepare(self) -> None:
        server = self._server
        if server.find_program() is None:
            searched = [*search_path(server.env).split(os.pathsep), *server.places()]
            problem = f"there is no program {server.called()}"
            raise CommandNotFound(self, problem, searched, "program", server.how_to_install())

    def _run(self, command: Sequence[str], **popen: Any) -> None:
        """Run a helper command, in the service's environment and directory.

        :raises PreparationFailed: it could not be run, or not to its end, or did not end well.
        """
        plan = replace(self._plan, environment=self.envvars, cwd=self.tmp)
        try:
            code, output = registry.current_run().run_command(command, plan, self._until(), **popen)
        except OSError as error:
            code, output = 127, str(error)
        self._heed_cancel()
        if code != 0:
            # What it had to say is on the same disk.
            raise PreparationFailed(self, command, code, output or _told_by_disk(self.tmp))


Running = TypeVar("Running", bound=ServerExecutor, covariant=True)


@dataclass(frozen=True, repr=False)
class Server(Service[Running]):
    """What the ready-made services have in common, beside the options of every service.

    :param program: the program, by its path or its name; by default it is searched for.
    :param options: settings of the server, by the names that it has for them: strings (with placeholders), numbers,
        ``True`` and ``False``.
    """

    command: Command | None = field(default=None, init=False)
    _: KW_ONLY
    cwd: str | os.PathLike[str] | None = "{tmp}"  # Where its user may be, also when root runs the tests elsewhere.
    program: str | os.PathLike[str] = ""
    options: Mapping[str, str | float] | None = None

    #: What the program can be called.
    programs: ClassVar[tuple[str, ...]] = ()
    #: How it is installed, by the system.
    packages: ClassVar[Mapping[str, str]] = {}
    #: What it is called with, beside the options.
    arguments: ClassVar[tuple[str, ...]] = ()
    #: The options that it has anyway.
    defaults: ClassVar[Mapping[str, str]] = {}
    #: The settings that an option of the declaration is for: the setting, and the option.
    own: ClassVar[Mapping[str, str]] = {"port": "port"}
    #: How it says true and false.
    words: ClassVar[tuple[str, str]] = ("yes", "no")
    #: The executor that it makes.
    runs_as: ClassVar[type[ServerExecutor]] = ServerExecutor

    needs_port = True
    runs = ()

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **options: Any) -> Self:
            """Tell of a command, in words."""
            return super().__new__(cls, **(dict.fromkeys(["command"]) if args else options))

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", tuple(self._command()))
        if self.reset is True:
            object.__setattr__(self, "reset", _reset)
        super().__post_init__()

    def __repr__(self) -> str:
        given = [each for each in fields(self) if each.repr and each.init and each.name != "env"]
        changed = [each.name for each in given if getattr(self, each.name) != getattr(type(self), each.name, None)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    @classmethod
    def _check_names(cls, options: Iterable[str]) -> None:
        if "command" in options:
            way_out = "leave it out; its program can be named in program=, settings of the server in options="
            raise DeclarationError(f"{cls.__name__}.command", f"a {cls.__name__} makes its command itself: {way_out}")
        super()._check_names(options)

    def _problems(self) -> Iterator[tuple[str, str]]:
        wrong = list(problems.of_settings("options", self.options))
        yield from wrong or self._misplaced() or super()._problems()
        if not isinstance(self.program, (str, os.PathLike)):
            yield "program", f"{self.program!r} is no path: write a string, or a pathlib.Path"

    def _misplaced(self) -> list[tuple[str, str]]:
        return [
            ("options", f"[{name!r}] is to be given as {self.own[name.lower()]}=")
            for name in self.options or {}
            if name.lower() in self.own
        ]

    # -- the command ---------------------------------------------------------------------------------------------------

    def _command(self) -> Iterator[str]:
        yield self.called()
        yield from self.arguments
        given = self.options if isinstance(self.options, Mapping) else {}
        for name, value in {**self.defaults, **given}.items():
            text = self.words[not value] if isinstance(value, bool) else str(value)
            yield from self.option(name, text)

    def option(self, name: str, value: str) -> tuple[str, ...]:
        """The arguments that set an option."""
        return f"--{name}", value

    def _make(self, command: str | Sequence[str], values: Mapping[str, str], **common: Any) -> Running:
        found = [self.find_program() or command[0], *command[1:]]
        port, given = int(values["port"]), self._given()
        return self.runs_as(self, found, values["host"], port, **given, **common)  # type: ignore[return-value]

    def _given(self) -> dict[str, Any]:
        """What its executor takes beside what every executor does."""
        return {}

    # -- the program ---------------------------------------------------------------------------------------------------

    def called(self) -> str:
        """What the program is called."""
        return str(self.program or self.programs[0])

    def find_program(self) -> str | None:
        """The path of the program; ``None``: it is not installed."""
        names = [os.fspath(self.program)] if self.program else self.programs
        # The PATH, and only then the places one by one, as it takes time to find out about them.
        for path in chain([search_path(self.env)], self.places()):
            for name in names:
                found = shutil.which(name, path=path)
                if found:
                    return os.path.abspath(found)
        return None

    def places(self) -> Iterator[str]:
        """The directories where it may be, beside those on the PATH; the best first."""
        yield from ()

    def missing(self) -> Iterator[tuple[str, str]]:
        if self.find_program() is None:
            yield "program", f"there is no program {self.called()}. {self.how_to_install()}"

    def how_to_install(self) -> str:
        """How the program is installed."""
        ways = "; ".join(f"{system}: {command}" for system, command in self.packages.items())
        return f"Install it ({ways})"

    def version(self) -> str:
        """The version of its program, such as ``7.0.15``.

        :raises FileNotFoundError: it is not installed.
        """
        program = self.find_program()
        if program is None:
            raise FileNotFoundError(f"there is no program {self.called()}. {self.how_to_install()}")
        return _version(program, os.stat(program).st_mtime_ns)


def _reset(executor: ServerExecutor) -> None:
    executor.reset()


def _told_by_disk(path: str | None) -> str:
    is_full = path is not None and shutil.disk_usage(path).free < _LEAST
    return f"no space is left in {path}" if is_full else ""


@cache
def _version(program: str, changed: int) -> str:
    told = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    found = _VERSION.search(told.stdout.decode(errors="replace"))
    return found[0] if found else ""
