"""Runs that are hit by a fault, and what they leave behind."""

import glob
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from caseexec import cgroup, processes, record
from tests.helpers import faulty
from tests.helpers.leaks import alive, soon
from tests.helpers.programs import python
from tests.helpers.runners import RUNNERS
from tests.helpers.runs import ROOT, plain_environment


class FaultyRun:
    """A run of test modules, in directories of its own.

    :param directory: an empty one, in which the others are made.
    :param runner: one of :data:`tests.helpers.runners.RUNNERS`.
    :param modules: the source of each module by its name; or of the only one, which imports what it needs from
        :mod:`tests.helpers.faulty`.
    :param beside: another run, whose temporary directories it shares; what is there already is not looked at.
    :ivar logs_may_stay: whether logs do not count as left.
    :ivar ended: when it was seen to have ended.
    :ivar left: what was left when that was looked at last.
    :ivar seconds: how long after the end that was.
    """

    def __init__(
        self,
        directory: str,
        runner: str,
        modules: str | Mapping[str, str],
        beside: "FaultyRun | None" = None,
        **variables: str,
    ) -> None:
        self.runner = RUNNERS[runner]
        self.directory = directory
        self.notes, work = self._make("notes"), self._make("work")
        self.tmp = beside.tmp if beside else self._make("tmp")
        named = {"test_it": modules} if isinstance(modules, str) else modules
        for name, source in {**{f"{name}.py": source for name, source in named.items()}, **self.runner.files}.items():
            with open(os.path.join(work, name), "w") as file:
                file.write(textwrap.dedent(source))
        self._table = processes.table()
        self._seen: set[processes.Identity] = set()
        self._files_before = beside.files() if beside else set()
        self._bystander: Bystander | None = None
        self.ended: float | None = None
        self.seconds = 0.0
        self.left: list[str] = []
        self.logs_may_stay = False
        names = sorted(named) if self.runner.names_modules else []
        with open(self._path("output"), "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.runner.command, *names], cwd=work, env=self._environment(variables),
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                # A job in a shell's background has SIGINT ignored, and its children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _make(self, name: str) -> str:
        os.makedirs(self._path(name), mode=0o700)
        return self._path(name)

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        return {
            **_environment(),
            "TMPDIR": self.tmp,
            "FAULTS_NOTES": self.notes,
            "PYTHONPATH": ROOT,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **self.runner.variables,
            **variables,
        }

    # -- notes ---------------------------------------------------------------------------------------------------------

    def noted(self, name: str) -> list[str]:
        """What the run and its services have noted by a name."""
        return notes(self.notes, name)

    def await_note(self, name: str, number: int = 1) -> None:
        """Wait until something was noted so many times."""
        if (
            not soon(lambda: len(self.noted(name)) >= number or self.process.poll() is not None, 60)
            or len(self.noted(name)) < number
        ):
            raise AssertionError(f"{name!r} was not noted in time. {self.story()}")

    def output(self) -> str:
        with open(self._path("output"), errors="replace") as file:
            return file.read()

    def story(self) -> str:
        """What happened, for the message of an assertion."""
        return f"{self.runner.command} ended with {self.process.poll()} and wrote:\n{self.output()[-4000:]}"

    # -- the fault -----------------------------------------------------------------------------------------------------

    def await_place(self) -> None:
        """Wait until the place is reached, by each worker; then look at everybody, and start a bystander."""
        self.await_note("reached", self.runner.workers)
        self.look()
        self.start_bystander()

    def start_bystander(self) -> None:
        """Start a process that is like a service, and must not be harmed."""
        self._bystander = Bystander(self._make("bystander"))

    def look(self) -> None:
        """Remember everybody who belongs to the run now, so that nobody needs a mark to be found afterwards."""
        root = self.process.pid
        its = (root, *processes.tree(self._table, root)) if self.process.poll() is None else ()
        # The number of one that was noted may be a stranger's by now.
        noted = filter(self._is_marked, map(int, self.noted("pids")))
        statuses = map(self._table.status, [*its, *noted])
        self._seen |= {status.identity for status in statuses if status is not None}

    def services(self) -> list[processes.Identity]:
        """The living processes that were noted, and seen by the last look."""
        noted = set(map(int, self.noted("pids")))
        return sorted(identity for identity in self._seen if identity.pid in noted and is_alive(identity))

    def hit(self, fault: str) -> None:
        """What a fault takes from outside; the rest of them the run does to itself when it is let go on."""
        match fault:
            case "ctrl_c":
                self._ctrl_c()
                if self.runner.remembers:
                    self.go_on()
            case "ctrl_c_twice":
                self._ctrl_c()
                if not self.runner.remembers:
                    self.await_note("asked")
                self._ctrl_c()
            case "sigterm":
                self.process.send_signal(signal.SIGTERM)
            case "sigkill":
                self.process.send_signal(signal.SIGKILL)
            case "sigterm_to_the_workers" | "sigkill_to_the_workers":  # To the run itself, where it has none.
                for worker in self.noted("reached"):
                    os.kill(int(worker), signal.SIGTERM if "term" in fault else signal.SIGKILL)
            case _:
                self.go_on()

    def _ctrl_c(self) -> None:
        """As a terminal does: to everybody in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)
        if self.runner.remembers and not self.noted("interrupted"):
            self.await_note("interrupted")

    def go_on(self) -> None:
        """Let the run go on."""
        with open(os.path.join(self.notes, "go"), "w"):
            pass

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def is_over(self, limit: float) -> bool:
        """Whether it has ended, and then nothing is left, or so many seconds have passed; :attr:`left` tells which."""
        if self.ended is None and self._has_ended():
            self.ended = time.monotonic()
        if self.ended is None:
            return False
        self.seconds = time.monotonic() - self.ended
        self.left = list(itertools.islice(self.remains(), 20))
        return not self.left or self.seconds > limit

    def _has_ended(self) -> bool:
        """Whether nobody of its process group lives: the run, its workers, their children that are no services."""
        if self.process.poll() is None:
            return False
        everybody = map(self._table.status, self._table.everybody())
        return not any(status and status.group == self.process.pid and not status.zombie for status in everybody)

    def remains(self) -> Iterator[str]:
        """What is left of the run, in words."""
        yield from (f"process {processes.describe(pid)}" for pid in self._living())
        yield from (f"port {port}" for port in self.ports() if self.answers(port))
        yield from self.files() - self._files_before
        yield from self._cgroups()

    def _living(self) -> list[int]:
        seen = [identity.pid for identity in self._seen if is_alive(identity)]
        return seen or [pid for pid in self._table.everybody() if self._is_marked(pid)]

    def _is_marked(self, pid: int) -> bool:
        """Whether a process has a mark of the run's, or else what only the run's have."""
        mark = self._table.mark(pid)
        return bool(mark and mark.rpartition(".")[0] in self.noted("runs")) or self.notes.encode() in _words(pid)

    def ports(self) -> list[int]:
        """The ports that its services have had."""
        return sorted(set(map(int, self.noted("ports"))))

    def answers(self, port: int) -> bool:
        """Whether a service of this run, and nobody else's, answers on a port."""
        return faulty.answers(port, self.notes)

    def files(self) -> set[str]:
        """What is in its temporary directory, and its leases, but for the log of a start that failed, which the error names."""
        output = self.output()
        inside = (
            os.path.join(directory, name) for directory, names, files in os.walk(self.tmp) for name in (*names, *files)
        )
        # By such a file the standard library's tempfile tries whether it can write there.
        ours = (path for path in inside if not re.fullmatch(r"[a-z0-9_]{8}", os.path.basename(path)))
        if self.runner.litters:
            ours = (path for path in ours if "caseexec-" in path)
        left = {path for path in ours if not (path.endswith(".log") and (self.logs_may_stay or path in output))}
        return left | set(self._leases())

    def _leases(self) -> Iterator[str]:
        """The leases of who was seen; whoever runs beside has its own in the same place."""
        where, holders = record.lease_directory(), {f"{identity.pid} {identity.born}" for identity in self._seen}
        holders.update(self.noted("holders"))
        for path in glob.glob(record.lease_path(where, "*")):
            with suppress(OSError), open(path) as file:
                if file.read().rpartition(f" {record.system()}")[0] in holders:
                    yield path

    def _cgroups(self) -> Iterator[str]:
        parent, runs = cgroup.own_directory(), self.noted("runs")
        for name in os.listdir(parent) if parent else ():
            if any(name.startswith(f"caseexec-{run}.") for run in runs):
                yield os.path.join(parent, name)

    def missing(self) -> list[str]:
        """What the run does not have any more, in words."""
        dead = [f"process {identity.pid}" for identity in self._seen if not is_alive(identity)]
        return dead + [f"port {port}" for port in self.ports() if not self.answers(port)]

    def harmed(self) -> list[str]:
        """The processes of the bystander that somebody has ended, in words."""
        return self._bystander.missing() if self._bystander else []

    def close(self) -> None:
        """End everybody."""
        if self._bystander is not None:
            self._bystander.close()
        self.look()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        while living := self._living():
            for status in filter(None, map(self._table.status, living)):
                self._table.send(status.identity, signal.SIGKILL)


class Bystander:
    """A process like a service, with a child and a daemon, which is nobody's.

    :param directory: where it notes its processes.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [*python(faulty.FAMILY), directory, "0"], stdout=subprocess.DEVNULL, env=_environment()
        )

    def missing(self) -> list[str]:
        """Those of its processes that do not live, in words."""
        if not soon(lambda: notes(self._directory, "ports") or self._process.poll() is not None):
            return ["its port"]
        return [f"process {pid}" for pid in map(int, notes(self._directory, "pids")) if not self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        return alive(pid) and self._directory.encode() in _words(pid)

    def close(self) -> None:
        """End it."""
        self.missing()
        for pid in filter(self._is_ours, map(int, notes(self._directory, "pids"))):
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """A plain one, without what switches parts of the library."""
    switches = ("CASEEXEC_CGROUP", "CASEEXEC_LOG_LIMIT", "CASEEXEC_REAPER", processes.MARK)
    return {name: value for name, value in plain_environment().items() if name not in switches}


def notes(directory: str, name: str) -> list[str]:
    """The lines that were noted in a directory by a name."""
    try:
        with open(os.path.join(directory, name)) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _words(pid: int) -> bytes:
    """The environment and the arguments of a process, where they are in /proc."""
    words = b""
    for name in ("environ", "cmdline"):
        with suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            words += file.read()
    return words


def is_alive(identity: processes.Identity) -> bool:
    """Whether this very process lives."""
    status = processes.table().status(identity.pid)
    return status is not None and status.identity == identity and not status.zombie
