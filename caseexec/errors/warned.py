"""The warnings."""

from __future__ import annotations

from collections.abc import Iterable

from caseexec.errors.facts import Facts
from caseexec.errors.text import seconds_text, shorten, signal_name

__all__ = [
    "BlindWarning",
    "CrashWarning",
    "ForcedKillWarning",
    "LeakedProcessWarning",
    "ReaperWarning",
    "RecordWarning",
]

# A warning is read as one line.
_LONGEST_COMMAND = 200


class LeakedProcessWarning(ResourceWarning):
    """Processes that should have ended were found alive. They were ended now, unless :attr:`why` says otherwise.

    :ivar who: the test class or executor.
    :ivar command: what was run.
    :ivar pids: the processes.
    :ivar why: how they came to be left.
    """

    def __init__(self, who: str, command: str, pids: Iterable[int], why: str) -> None:
        self.who, self.command, self.pids, self.why = who, command, list(pids), why
        super().__init__(who, command, self.pids, why)

    def __str__(self) -> str:
        pids = ", ".join(map(str, self.pids))
        command = shorten(self.command, _LONGEST_COMMAND)
        return f"{self.who} left processes behind (pid {pids}; command: {command}): {self.why}."


class ForcedKillWarning(RuntimeWarning):
    """A service did not end within its stop timeout and was killed.

    :ivar facts: what was known, as :class:`Facts`.
    :ivar pids: the processes that were killed.
    :ivar signal: the stop signal that they had been given.
    :ivar timeout: the seconds that they had been given to end.
    """

    def __init__(self, facts: Facts, pids: Iterable[int], signal: int, timeout: float) -> None:
        self.facts, self.pids, self.signal, self.timeout = facts, list(pids), signal, timeout
        super().__init__(facts, self.pids, signal, timeout)

    def __str__(self) -> str:
        pids, given = ", ".join(map(str, self.pids)), seconds_text(self.timeout, self.facts.scale)
        return (
            f"{self.facts.who} did not end within {given} of {signal_name(self.signal)} and was "
            f"killed (pid {pids}; command: {shorten(self.facts.command, _LONGEST_COMMAND)}). Give it more time with "
            f"{self.facts.setting('stop_timeout')}, or another signal with {self.facts.setting('stop_signal')}."
        )


class CrashWarning(RuntimeWarning):
    """A service that may do so, by its declaration, has ended by itself.

    :ivar what: what happened, and when (``redis was killed by SIGSEGV during CacheTests.test_b``).
    :ivar then: what was done about it.
    """

    def __init__(self, what: str, then: str) -> None:
        self.what, self.then = what, then
        super().__init__(what, then)

    def __str__(self) -> str:
        return f"{self.what}; {self.then}"


class BlindWarning(ResourceWarning):
    """Nothing could be seen of other processes, as this one has no file descriptor left; some may be left.

    The reaper looks again at the end of the run.

    :ivar mark: the mark of the service whose processes were looked for.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        super().__init__(mark)

    def __str__(self) -> str:
        return (
            "this process has no file descriptor left (ulimit -n), so it could not be seen whether all processes of "
            f"service {self.mark} have ended; caseexec's reaper ends them when this run ends"
        )


class ReaperWarning(RuntimeWarning):
    """The reaper, which ends what a killed run leaves behind, could not be started, or was found dead.

    :ivar problem: what happened.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)

    def __str__(self) -> str:
        return f"caseexec's reaper {self.problem}"


class RecordWarning(RuntimeWarning):
    """A record of a run, or a lease of a port, could not be written, or a record is not to be trusted.

    :ivar path: the file or directory.
    :ivar problem: what is wrong with it.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(path, problem)

    def __str__(self) -> str:
        return f"{self.path} is ignored: {self.problem}"
