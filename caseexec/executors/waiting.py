"""The base of the executors that wait until a probe says that the command is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from caseexec import registry
from caseexec.errors import AlreadyRunning, DeclarationError, Facts, Owner, ProcessExitedWithError
from caseexec.executors.simple import Command, SimpleExecutor, split
from caseexec.output import Capture
from caseexec.ports import Listener
from caseexec.probes import Claim, NotReady, Probe, all_of, as_probe

__all__ = ["Executor"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Executor(SimpleExecutor):
    """Base of the executors that wait until a probe says that the command is ready.

    Subclasses of one's own may override :meth:`pre_start_check` and :meth:`after_start_check` instead.

    :param probe: a further probe or function; all must hold.
    :param listener: ``"ours"``: a stranger on our port is an error; ``"any"``: everybody may answer (socket activation,
        a port that is passed on).
    :ivar host: the address that the command listens on.
    :ivar port: the port that it listens on; ``None`` when it has none.
    """

    host: str = "127.0.0.1"
    port: int | None = None

    def __init__(
        self,
        command: Command,
        *args: Any,
        probe: Probe | Callable[[Any], object] | None = None,
        listener: str = "ours",
        **kwargs: Any,
    ) -> None:
        super().__init__(command, *args, **kwargs)
        if listener not in ("ours", "any"):
            raise DeclarationError("listener", f'{listener!r} is neither "ours" nor "any"')
        self._further = as_probe(probe) if probe is not None else None
        self._listener = listener
        self.occupant: Owner | None = None
        self._declared = False
        self._tmp: str | None = None

    def belongs_to_service(self, host: str, port: int | None, tmp: str) -> None:
        """Note what the declaration knows that this executor was made of."""
        self._declared = True
        self.host, self.port, self._tmp = host, port, tmp

    @property
    def address(self) -> str:
        """``host:port``, an IPv6 host in brackets; empty without a port."""
        if self.port is None:
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``tcp://host:port``; empty without a port."""
        return f"tcp://{self.address}" if self.address else ""

    @property
    def tmp(self) -> str | None:
        """The directory that ``{tmp}`` stands for; ``None`` for an executor that no service made."""
        return self._tmp

    def facts(self) -> Facts:
        """What is known now, for errors."""
        return replace(super().facts(), declared=self._declared, awaiting=self._awaiting())

    @property
    def listener(self) -> str:
        """Whose listener counts as ready: ``"ours"``, or ``"any"``."""
        return self._listener

    @property
    def place(self) -> str:
        """What only one process can have, in words: a port, a socket, a pid file; empty when it needs none."""
        probe = self._own_probe()
        return probe.place if isinstance(probe, Claim) else ""

    def _own_probe(self) -> Probe | None:
        """The probe of this kind of executor."""
        return None

    def _probe(self) -> Probe:
        probes = [probe for probe in (self._own_probe(), self._further) if probe is not None]
        if not probes:
            raise NotImplementedError(f"{type(self).__name__} needs a probe, or an after_start_check() of its own")
        return all_of(*probes) if len(probes) > 1 else probes[0]

    def _awaiting(self) -> str:
        with suppress(NotImplementedError):
            return str(self._probe())
        return ""

    def pre_start_check(self) -> bool:
        """Whether somebody else already has what the command needs."""
        probe = self._own_probe()
        if probe is None and self._further is None:
            raise NotImplementedError(f"{type(self).__name__} needs a probe, or a pre_start_check() of its own")
        # Where any listener will do, one that was there before (socket activation) is no reason not to start.
        self.occupant = probe.occupant() if isinstance(probe, Claim) and self._listener == "ours" else None
        return self.occupant is not None

    def after_start_check(self) -> bool:
        """Whether the service is ready now."""
        try:
            self._probe().check(self)
        except NotReady as error:
            self._refusal = str(error)
            return False
        return True

    def check_subprocess(self) -> bool:
        """Make sure that the command has not failed, then ask :meth:`after_start_check`.

        A command that ended with status 0 may have gone to the background, or have started something elsewhere.

        :raises ProcessExitedWithError: it ended with another status, or by a signal.
        """
        code = self._owned.group.poll() if self._owned else None
        if code:
            error = ProcessExitedWithError(self, code)
            self._abort()
            raise error
        return self.after_start_check()

    def start(self) -> Self:
        """Start the command and wait until it is ready.

        :raises AlreadyRunning: somebody else has its port, socket or pid file; or it is started already.
        :raises ProcessExitedWithError: it ended with an error before it was ready.
        :raises TimeoutExpired: it was not ready in time.
        :raises CommandNotFound: the program or the directory does not exist.
        """
        self._deadline, self._refusal = None, ""
        if self._owned is None:
            self._capture = Capture()
        if self.pre_start_check():
            raise AlreadyRunning(self)
        try:
            super().start()
            self.wait_for(self.check_subprocess)
        except ProcessExitedWithError as error:
            self._raise_if_lost(error)
            raise
        except BaseException:
            self._abort()
            raise
        return self

    def _raise_if_lost(self, error: ProcessExitedWithError) -> None:
        """When a command ended because somebody else was faster, say so."""
        if self.pre_start_check():
            lost = AlreadyRunning(self)
            lost.facts = error.facts
            raise lost from error

    # -- what probes ask -----------------------------------------------------------------------------------------------

    def stranger(self, listeners: Sequence[Listener]) -> Owner | None:
        """Who of these listeners is certainly somebody else's."""
        return self._owned.group.stranger(listeners) if self._owned else None

    def is_stranger(self, pid: int) -> bool:
        """Whether a process is certainly somebody else's."""
        group = self._owned.group if self._owned else None
        return group is not None and pid not in group.living() and group.is_stranger(pid)

    def run(self, command: Command, shell: bool) -> tuple[int | None, str]:
        """Run a check command in the command's environment and directory, within the remaining time."""
        plan = replace(self._plan, shell=shell, environment=self.envvars)
        return registry.run_command(split(command) if isinstance(command, str) and not shell else command,
                                    plan, self.deadline)  # fmt: skip
