"""What is known when something goes wrong, and how it is told."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from dataclasses import dataclass

from caseexec.errors.text import printable, shorten

__all__ = ["Facts", "Origin", "Owner"]

# What an executor calls those settings that a declaration names otherwise.
_EXECUTOR_NAMES = {"start_timeout": "timeout", "pid_file": "filename", "socket": "socket_name", "env": "envvars"}
_LONGEST_COMMAND = 4000


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The run that has started a process which carries caseexec's mark.

    :ivar run: its id; the record tells the rest, and all else is empty when there is none.
    :ivar records: the directory in which the record was looked for.
    :ivar pid: its process.
    :ivar alive: whether it runs.
    :ivar own: whether it is this very process.
    :ivar command: its command line.
    :ivar service: the service that the process belongs to.
    :ivar test_class: the test class that declares the service; empty for an executor.
    :ivar since: when the service was started, in seconds of the Unix epoch.
    """

    run: str
    records: str = ""
    pid: int | None = None
    alive: bool = False
    own: bool = False
    command: str = ""
    service: str = ""
    test_class: str = ""
    since: float = 0

    def __str__(self) -> str:
        if self.pid is None:
            return (
                f"It is a service of caseexec run {self.run}, of which there is no record in {self.records}: "
                "it was removed, or is another user's."
            )
        of_class = f" of {self.test_class}" if self.test_class else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"It is {self.service}{of_class}, started {when} by caseexec run {self.run} {self._who()}."

    def _who(self) -> str:
        if self.own:
            return "(this very process)"
        command = f": {shorten(self.command, 100)}" if self.command else ""
        return f"(pid {self.pid}{command}), which {'is still running' if self.alive else 'has ended'}"

    def way_out(self) -> str:
        """How the process is ended; empty when only its number can tell."""
        if self.own:
            return "Stop it first"
        if self.pid is None:
            return ""
        command = f"{shlex.quote(sys.executable or 'python')} -m caseexec reap {self.run}"
        return f"Wait for that run, or end its services: {command}" if self.alive else f"End it: {command}"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that holds what a service needs: a port, a Unix socket, a pid file.

    :ivar pid: its process id; ``None`` when it could not be seen (it belongs to another user or namespace).
    :ivar command: its command line, as far as it could be read.
    :ivar user: the name of the user that it runs as.
    :ivar origin: the run that has started it, when it carries caseexec's mark.
    """

    pid: int | None = None
    command: str = ""
    user: str = ""
    origin: Origin | None = None

    def __str__(self) -> str:
        of_user = f" of user {self.user}" if self.user else ""
        if self.pid is None:
            return f"a process{of_user} that could not be seen (another user's, or in another namespace)"
        return f"pid {self.pid} ({shorten(self.command, 200) or 'command unknown'}){of_user}"

    def way_out(self, port: str = "") -> str:
        """How it is ended, or else found by the port that it has."""
        if self.origin and self.origin.way_out():
            return self.origin.way_out()
        if self.pid is not None:
            return f"End that process (kill {self.pid})"
        look = f"ss -ltnp 'sport = :{port}'" if sys.platform == "linux" else f"lsof -nP -i :{port}"
        return f"Find and end that process (sudo {look})" if port else "Find and end that process"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an executor knew when something went wrong.

    :ivar who: the executor or the test class; ``declared`` says which.
    :ivar declared: what stands before the name of an option of a test class's service; empty: it is none.
    :ivar existing: what names a service that was there already; empty: it is one of ours.
    :ivar command: what was run, as a shell would take it.
    :ivar awaiting: words that complete "waiting for ...".
    :ivar scale: what the timeouts are multiplied by; 0: they have no limit.
    :ivar waited: seconds from the start of the command to the error.
    :ivar refusal: the last answer that was not yet "ready".
    :ivar pid: the process group's leader.
    :ivar returncode: how the leader had ended, ``None`` while it was running.
    :ivar log_paths: the files with everything that the command wrote: one, or one for stdout and one for stderr.
    :ivar output: the last lines of it.
    """

    who: str = ""
    declared: str = ""
    existing: str = ""
    command: str = ""
    awaiting: str = ""
    scale: float = 1
    waited: float | None = None
    refusal: str = ""
    pid: int | None = None
    returncode: int | None = None
    log_paths: tuple[str, ...] = ()
    output: str = ""

    @property
    def log_path(self) -> str | None:
        """The first of :attr:`log_paths`; ``None`` when nothing was captured."""
        return self.log_paths[0] if self.log_paths else None

    def setting(self, name: str) -> str:
        """Name the attribute or argument with which the user changes *name*."""
        return f"{self.declared}{name}" if self.declared else f"its {_EXECUTOR_NAMES.get(name, name)}"

    def lines(self) -> list[str]:
        """The facts below an error's first line, one each; those not known are left out."""
        command = textwrap.indent(textwrap.dedent(self.command).strip(), "    ").strip()
        if len(command) > _LONGEST_COMMAND:
            command = f"{command[:_LONGEST_COMMAND]} [... {len(command) - _LONGEST_COMMAND} more characters]"
        found = [f"  command: {command}"] if command else []
        if self.awaiting:
            found.append(f"  waiting for: {self.awaiting}")
        if self.refusal:
            found.append(f"  last refusal: {self.refusal}")
        if self.log_paths:
            found.append(f"  log: {' and '.join(self.log_paths)}")
        if self.log_paths or self.output:
            found.append("  last output:" if self.output else "  last output: none, it wrote nothing")
            found += [f"    {printable(line)}" for line in self.output.split("\n") if self.output]
        return found
