"""The base of the executors that wait until a probe says that the command is ready."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from caseexec import registry
from caseexec.deadline import Deadline
from caseexec.errors import (
    AlreadyRunning,
    DeclarationError,
    ExecutorError,
    Facts,
    LeakedProcessWarning,
    Owner,
    ProcessExitedWithError,
    shorten,
)
from caseexec.executors.command import Command, fact
from caseexec.executors.declared import Declared
from caseexec.executors.portfinder import PortFinder
from caseexec.executors.simple import SimpleExecutor
from caseexec.executors.target import Target
from caseexec.output import Capture
from caseexec.probes import Claim, NotReady, OutputProbe, PidProbe, Probe, TCPProbe, all_of, as_probe, require_ours

__all__ = ["Executor"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# Seconds for the service of a command that has ended well to answer once more.
_LAST_LOOK = 1.0


class Executor(SimpleExecutor):
    """Base of the executors that wait until a probe says that the command is ready.

    Subclasses of one's own may override :meth:`pre_start_check` and :meth:`after_start_check` instead.

    :param probe: a further probe or function; all must hold.
    :param listener: ``"ours"``: a stranger on our port is an error; ``"any"``: everybody may answer (socket activation,
        a port that is passed on).
    :param port_pattern: a regular expression, for a command that chooses its port and writes that: its first group is
        the port. :attr:`port` is ``None`` until then.
    :ivar host: the address that the command listens on.
    :ivar port: the port that it listens on; ``None`` when it has none.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    _awaited = True

    def __init__(
        self,
        command: Command,
        *args: Any,
        probe: Probe | Callable[[Any], object] | None = None,
        listener: str = "ours",
        port_pattern: str | re.Pattern[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(command, *args, **kwargs)
        if listener not in ("ours", "any"):
            raise DeclarationError("listener", f'{listener!r} is neither "ours" nor "any"')
        self._further = as_probe(probe) if probe is not None else None
        self._listener = listener
        self._port_finder = PortFinder(port_pattern) if port_pattern else None
        self._taken: tuple[Owner | None, str] = (None, "")
        self._declared: Declared | None = None

    def belongs_to_service(self, declared: Declared, host: str) -> None:
        """Note what the declaration knows that this executor was made of."""
        self._declared = declared
        self._lasting_log = declared.log
        self.host, self.port = host, declared.port

    @fact
    def address(self) -> str:
        """``host:port``, an IPv6 host in brackets; empty without a port."""
        if self.port is None:
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @fact
    def url(self) -> str:
        """``tcp://host:port``; empty without a port."""
        return f"tcp://{self.address}" if self.address else ""

    @fact
    def tmp(self) -> str | None:
        """The directory that ``{tmp}`` stands for; ``None`` for an executor that no service made."""
        return self._declared.tmp if self._declared else None

    def _facts(self) -> Facts:
        declared = self._declared.where if self._declared else ""
        return replace(super()._facts(), declared=declared)

    def _about(self) -> registry.About:
        about = replace(super()._about(), address=self.address)
        if not self._declared:
            return about
        name = self._declared.attribute or self.program
        return replace(about, service=name, test_class=self._declared.test_class)

    def _own_probe(self) -> Probe | None:
        """The probe of this kind of executor."""
        return None

    def _probe(self) -> Probe:
        own = self._own_probe()
        if self.existing and isinstance(own, (OutputProbe, PidProbe)):  # What it wrote is not to be seen.
            own = TCPProbe(self.host, self.port or 0)
        probes = [probe for probe in (own, self._further) if probe is not None]
        if not probes:
            raise NotImplementedError(f"{type(self).__name__} needs a probe, or an after_start_check() of its own")
        return all_of(*probes) if len(probes) > 1 else probes[0]

    def _awaiting(self) -> str:
        if self._port_finder and self.port is None:
            return str(self._port_finder)
        with suppress(NotImplementedError):
            return str(self._probe())
        return ""

    def _claims(self) -> Iterator[Claim]:
        """What only one process can have, and the command needs."""
        if self._listener == "any" or (self._port_finder and self.port is None):
            # One that was there before (socket activation) is no reason not to start.
            return
        probe = self._own_probe()
        if isinstance(probe, Claim):
            yield probe
        if self._guards_port():
            yield TCPProbe(self.host, self.port or 0)

    def _guards_port(self) -> bool:
        """Whether the command has a port that its own probe does not look at."""
        return self._declared is not None and self.port is not None

    def pre_start_check(self) -> bool:
        """Whether somebody else already has what the command needs."""
        if self._own_probe() is None and self._further is None:
            raise NotImplementedError(f"{type(self).__name__} needs a probe, or a pre_start_check() of its own")
        for claim in self._claims():
            owner = claim.occupant()
            if owner is not None:
                self._taken = owner, claim.place
                return True
        return False

    def after_start_check(self) -> bool:
        """Whether the service is ready now."""
        target = self._target(self._until())
        if self._port_finder and self.port is None and not self._find_port(self._port_finder, target):
            return False
        deadline, waited = target.deadline, target.deadline.elapsed()
        hurried = deadline.remaining() < waited / 10
        try:
            self._probe().check(target)
        except NotReady as error:
            # A last look that was cut short knows less than the one before.
            if not (self._refusal and hurried and deadline.expired()):
                self._refusal = shorten(str(error), 400)
            return False
        if self._guards_port():
            require_ours(target, self.host, self.port or 0)
        return True

    def _target(self, deadline: Deadline) -> Target:
        return Target(self, self._listener, deadline)

    def _find_port(self, finder: PortFinder, target: Target) -> bool:
        found = finder.look(target.logs, target.deadline.expired)
        if found is None:
            self._refusal = f"not found in the {sum(log.mark() for log in target.logs)} bytes that it wrote"
            return False
        self._refusal = ""
        self._set_port(found)
        return True

    def _set_port(self, port: int) -> None:
        self.port = port

    def has_died(self) -> bool:
        """Whether it has ended by itself since it was ready, rather than to have been stopped or killed.

        One that ended with status 0, and whose service still answers, has only started that (``docker run --detach``).
        """
        if self._elsewhere is None and super().has_died() and self.exit_code() == 0:
            self._elsewhere = self._still_answers()
        return super().has_died()

    def _still_answers(self) -> bool:
        probe = self._own_probe()
        if probe is None or isinstance(probe, OutputProbe):  # What it once wrote says nothing of now.
            return False
        try:
            probe.check(self._target(Deadline(_LAST_LOOK)))
        except (NotReady, ExecutorError):
            return False
        return True

    def check_subprocess(self) -> bool:
        """Make sure that the command has not failed, then ask :meth:`after_start_check`.

        A command that ended with status 0 may have gone to the background, or have started something elsewhere.

        :raises ProcessExitedWithError: it ended with another status, or by a signal.
        """
        self._require_no_failure()
        if not self.after_start_check():
            return False
        # Again, as it may have failed meanwhile, and what it has left, as a pid file, looked like readiness.
        self._require_no_failure()
        return True

    def _require_no_failure(self) -> None:
        code = self._owned.group.poll() if self._owned else None
        if code:
            error = ProcessExitedWithError(self, code)
            self._abort()
            raise error

    def start(self) -> Self:
        """Start the command and wait until it is ready.

        :raises AlreadyRunning: somebody else has its port, socket or pid file; or it is started already.
        :raises ProcessExitedWithError: it ended with an error before it was ready.
        :raises TimeoutExpired: it was not ready in time.
        :raises CommandNotFound: the program or the directory does not exist.
        """
        with self._cancellable():
            self._check_and_start()
        return self

    def _check_and_start(self) -> None:
        self._deadline, self._refusal, self._taken, self._elsewhere = None, "", (None, ""), None
        if self.existing:
            self._await_ready()
            return
        if self._is_ours() and not self._lives():  # It has ended, or is about to; what is left of it may have our port.
            self.kill()
        if self._owned is None:
            self._capture = Capture(self._lasting_log)
            if self._port_finder:
                self.port = None
                self._port_finder.begin()
        if self.pre_start_check():
            raise AlreadyRunning(self, *self._taken)
        try:
            super().start()
            self.wait_for(self.check_subprocess)
            if self._owned is not None:
                self._owned.became_ready()
        except ProcessExitedWithError as error:
            self._raise_if_lost(error)
            raise
        except BaseException as error:
            # Of any other, as an interrupt, nothing names the log.
            self._abort(keep_logs=isinstance(error, ExecutorError))
            raise
        if not self._lives():
            self._elsewhere = True

    def _await_ready(self) -> None:
        self._set_timeout()
        self.wait_for(self.check_subprocess)

    def stop(self, stop_signal: int | None = None, expected_returncode: int | None = None) -> Self:  # noqa: D102
        started = self._is_ours()
        super().stop(stop_signal, expected_returncode)
        if started:
            self._warn_of_who_stayed()
        return self

    def _warn_of_who_stayed(self) -> None:
        """A daemon that left no trace still has what only the service can have."""
        for claim in self._claims():
            owner = claim.occupant()
            if owner is not None and owner.pid and owner.origin is None:
                why = (
                    f"{claim.place} is still held by {owner}, after the service has ended. It was left alone, as "
                    f"it may be a stranger. If it is the service, gone to the background without a trace, set "
                    f"{self._facts().setting('daemonizes')} = True. {owner.way_out()}"
                )
                warnings.warn(LeakedProcessWarning(self._who(), self.command, [owner.pid], why), stacklevel=3)
                return

    def _raise_if_lost(self, error: ProcessExitedWithError) -> None:
        """When a command ended because somebody else was faster, say so."""
        for claim in self._claims():
            thief = claim.thief()
            if thief is not None:
                lost = AlreadyRunning(self, thief, claim.place)
                lost.facts = error.facts
                raise lost from error
