"""What all kinds of services have in common."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from caseexec import ports
from caseexec.errors import DeclarationError
from caseexec.executors import Executor
from caseexec.executors.command import START_TIMEOUT, STOP_TIMEOUT, Command
from caseexec.placeholders import fill, fill_command, names
from caseexec.probes import Probe
from caseexec.service import problems

__all__ = ["Service"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


@dataclass(frozen=True)
class Service:
    """What all kinds of services have in common.

    :param command: what to run, a string or a sequence.
    :param host: the address it listens on.
    :param port: the port it listens on; 0: a free one is leased for each start.
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
    #: What errors put before the name of an option.
    where: str = field(default="", repr=False, compare=False)

    #: The options in which placeholders are filled, beside the command.
    templates: ClassVar[tuple[str, ...]] = ("env", "cwd", "stop_command")
    #: The option that says when this kind is ready; it must not be empty.
    needed: ClassVar[str] = ""
    needs_port: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for option, problem in self._problems():
            raise DeclarationError(f"{self.where or type(self).__name__ + '.'}{option}", problem)

    def _problems(self) -> Iterator[tuple[str, str]]:
        """What cannot be right: the option, and what is wrong with it."""
        yield from problems.of_command("command", self.command, self.shell)
        if self.stop_command is not None:
            yield from problems.of_command("stop_command", self.stop_command, self.shell)
        yield from problems.of_strings("env", self.env)
        for option in ("command", *self.templates):
            yield from problems.of_placeholders(option, getattr(self, option))
        yield from problems.of_port(self.port, needed=self.needs_port, used=self._uses_port())
        for option in ("start_timeout", "stop_timeout"):
            yield from problems.of_seconds(option, getattr(self, option))
        for option in ("stop_signal", "kill_signal"):
            yield from problems.of_signal(option, getattr(self, option))
        yield from problems.of_others(self.expected_returncode, self.daemonizes, self.listener, self.probe)
        if self.needed and not getattr(self, self.needed):
            yield self.needed, f"it is not set: {problems.NEEDED[self.needed]}"

    def _uses_port(self) -> bool:
        used = {name for option in ("command", *self.templates) for name in names(getattr(self, option))}
        return not used.isdisjoint({"port", "address", "url"})

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

    def lease(self) -> int | None:
        """The port for one start: the given one, a leased one, or ``None`` when the service uses none."""
        if self.port == 0:
            return self._free_port() if self.needs_port or self._uses_port() else None
        return self.port

    def _free_port(self) -> int:
        try:
            return ports.free_port(self.host)
        except OSError as error:
            problem = f"no port can be leased on {self.host!r}: {error.strerror or error}"
            raise DeclarationError(f"{self.where or type(self).__name__ + '.'}host", problem) from None

    def executor(self, name: str, port: int | None, tmp: str) -> Executor:
        """An executor for one start, not started."""
        values = self.values(port, tmp)
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
            name=name,
        )
        executor.belongs_to_service(self.host, port, tmp)
        return executor

    def _make(self, command: Command, values: Mapping[str, str], **common: Any) -> Executor:
        raise NotImplementedError(f"{type(self).__name__} is no kind of service, only the base of all kinds")
