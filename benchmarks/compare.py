"""caseexec, mirakuru and a loop written by hand, side by side in one interleaved run.

``python -m benchmarks.compare [--rounds N] [--only NAME] [--json FILE]``; README.rst tells what is measured and how.
"""

from __future__ import annotations

import argparse
import glob
import http.client
import importlib
import json
import math
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from benchmarks.ports import HOST, free_port

BANNER = "ready"
START_TIMEOUT = 30
LONGEST_DELAY = 0.030  # seconds; drawn for every round, so that nobody's sleeps fit the service by chance
CHUNK = 10  # rounds between two changes of the number of idle processes
SERVICE = [sys.executable, "-I", "-S", os.path.join(os.path.dirname(os.path.abspath(__file__)), "service.py")]


# -- the contenders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a contender is given: a command, and how to know that it is ready."""

    kind: str
    command: Sequence[str]
    home: str
    port: int = 0
    stop_signal: int = signal.SIGTERM

    def path(self, name: str) -> str:
        return os.path.join(self.home, name)


class Executor(Protocol):
    """What a contender makes of a job."""

    def start(self) -> object: ...
    def stop(self) -> object: ...


Contender = Callable[[Job], Executor]


class Loop:
    """What one writes by hand: look every millisecond; stop the group and wait for its leader."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ready = KINDS[job.kind].ready
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.job.path("output"), "wb") as output:
            self.process = subprocess.Popen(
                self.job.command, cwd=self.job.home, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT
        while not self.ready(self.job):
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.job.command} ended with {self.process.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.job.command} was not ready in time")
            time.sleep(0.001)

    def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, self.job.stop_signal)
            self.process.wait()


def tcp_ready(job: Job) -> bool:
    try:
        socket.create_connection((HOST, job.port), 1).close()
    except OSError:
        return False
    return True


def http_ready(job: Job) -> bool:
    connection = http.client.HTTPConnection(HOST, job.port, timeout=1)
    try:
        connection.request("HEAD", "/")
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def unix_ready(job: Job) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(job.path("socket"))
        except OSError:
            return False
    return True


def output_ready(job: Job) -> bool:
    with open(job.path("output")) as output:
        return BANNER in output.read()


class Kind(NamedTuple):
    """A kind of readiness: the libraries' executor, what it is told, and how the loop looks."""

    executor: str
    arguments: Callable[[Job], tuple[object, ...]]
    ready: Callable[[Job], bool]


KINDS = {
    "tcp": Kind("TCPExecutor", lambda job: (HOST, job.port), tcp_ready),
    "http": Kind("HTTPExecutor", lambda job: (f"http://{HOST}:{job.port}/",), http_ready),
    "output": Kind("OutputExecutor", lambda job: (BANNER,), output_ready),
    "pid": Kind("PidExecutor", lambda job: (job.path("pid"),), lambda job: os.path.isfile(job.path("pid"))),
    "unix": Kind("UnixSocketExecutor", lambda job: (job.path("socket"),), unix_ready),
    "none": Kind("SimpleExecutor", lambda job: (), lambda job: True),
}


def library(module: Any, job: Job) -> Executor:
    """Make an executor of caseexec or mirakuru: names and arguments are the same, all else is the default."""
    kind = KINDS[job.kind]
    executor: Executor = getattr(module, kind.executor)(
        job.command, *kind.arguments(job), cwd=job.home, timeout=START_TIMEOUT, stop_signal=job.stop_signal,
        popen_kwargs={"stderr": subprocess.STDOUT},
    )  # fmt: skip
    return executor


def contenders() -> dict[str, Contender]:
    found: dict[str, Contender] = {}
    for name in ("caseexec", "mirakuru"):
        try:
            found[name] = partial(library, importlib.import_module(name))
        except ImportError:
            print(f"{name} is not installed and is left out: pip install -e '.[benchmarks]'")
    return {**found, "loop": Loop}


# -- what is measured --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """One contender's turn in one round of one scenario.

    :ivar work: a directory that is there for the whole run.
    :ivar home: an empty one for this turn only.
    :ivar delay: seconds until the service becomes ready, the same for all contenders in a round.
    """

    contender: str
    make: Contender
    work: str
    home: str
    delay: float


def now() -> float:
    return time.monotonic_ns() / 1e6


def service(kind: str, turn: Turn, delay: float | None = None, *, serves: str = "") -> Job:
    """Our own service; *serves* when it does something else than its contender waits for."""
    port = free_port()
    delay = turn.delay if delay is None else delay
    return Job(kind, [*SERVICE, serves or kind, turn.home, str(port), str(delay)], turn.home, port)


def stamp(job: Job) -> float:
    """When the service was ready (or ended), by itself; the start may come back before it has written that down."""
    for _ in range(1000):
        with suppress(OSError), open(job.path("stamp")) as file:
            text = file.read()
            if text.endswith("\n"):
                return int(text) / 1e6
        time.sleep(0.001)
    raise TimeoutError("the service has not told when it was ready")


@contextmanager
def started(executor: Executor) -> Iterator[None]:
    try:
        executor.start()
        yield
    finally:
        executor.stop()


def start_overhead(kind: str, turn: Turn) -> float:
    job = service(kind, turn)
    with started(turn.make(job)):
        returned = now()
        return returned - stamp(job)


def stop_time(turn: Turn) -> float:
    job = service("tcp", turn)
    executor = turn.make(job)
    with started(executor):
        stamp(job)
        begun = now()
        executor.stop()
        return now() - begun


def early_exit(turn: Turn) -> float:
    job = service("tcp", turn, serves="exit")
    executor = turn.make(job)
    try:
        executor.start()
    except Exception:
        raised = now()
        return raised - stamp(job)
    finally:
        executor.stop()
    raise AssertionError(f"{turn.contender} has not noticed that the service ended")


def cycle(make_job: Callable[[Turn], Job], turn: Turn) -> float:
    executor = turn.make(make_job(turn))
    begun = now()
    with started(executor):
        pass
    return now() - begun


def sleep_command(turn: Turn) -> Job:
    return Job("none", ["sleep", "60"], turn.home)


IMPORTS = {
    "package": {
        "caseexec": "import caseexec",
        "mirakuru": "import mirakuru",
        "loop": "import socket, subprocess, time",
    },
    "TCPExecutor": {
        "caseexec": "from caseexec import TCPExecutor",
        "mirakuru": "from mirakuru import TCPExecutor",
        "loop": "import socket, subprocess, time",
    },
}


def import_time(what: str, turn: Turn) -> float:
    """How long an import takes within a fresh interpreter."""
    code = f"from time import perf_counter as t; a = t(); {IMPORTS[what][turn.contender]}; print((t() - a) * 1000)"
    return float(subprocess.run([sys.executable, "-c", code], cwd=turn.home, check=True, stdout=subprocess.PIPE).stdout)


def interpreter_time(turn: Turn) -> float:
    begun = now()
    subprocess.run([sys.executable, "-c", "pass"], cwd=turn.home, check=True)
    return now() - begun


# -- real servers ------------------------------------------------------------------------------------------------------

# PostgreSQL refuses to run as root; nobody is good enough for all of them.
DROP = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []

NGINX = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
    server {{ listen {host}:{port}; location / {{ return 200; }} }}
}}
"""


def program(name: str) -> str | None:
    """Find a program, also where Debian hides it from a user's PATH."""
    hidden = [*sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(hidden))


def redis(home: str, port: int) -> list[str]:
    return [f"{program('redis-server')}", "--bind", HOST, "--port", str(port), "--save", "", "--dir", home]


def nginx(home: str, port: int) -> list[str]:
    with open(f"{home}/nginx.conf", "w") as file:
        file.write(NGINX.format(host=HOST, port=port))
    return [f"{program('nginx')}", "-p", home, "-e", "stderr", "-c", file.name]


def postgresql(home: str, port: int) -> list[str]:
    data = f"{home}/data"
    if not os.path.exists(data):
        command = [*DROP, f"{program('initdb')}", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
        subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL)
    settings = (f"listen_addresses={HOST}", f"port={port}", f"unix_socket_directories={home}", "fsync=off")
    return [f"{program('postgres')}", "-D", data, *(part for setting in settings for part in ("-c", setting))]


class Server(NamedTuple):
    """A real server: its command, what it needs, how it is stopped."""

    command: Callable[[str, int], list[str]]
    programs: tuple[str, ...]
    stop_signal: int = signal.SIGTERM


SERVERS = {
    "redis": Server(redis, ("redis-server",)),
    "nginx": Server(nginx, ("nginx",)),
    "postgresql": Server(postgresql, ("initdb", "postgres"), signal.SIGINT),  # "fast shutdown"
}


def server_job(name: str, turn: Turn) -> Job:
    """A server in a directory of its own for each contender, so that none inherits what another's stop left undone."""
    home = os.path.join(turn.work, f"{name}-{turn.contender}")
    if not os.path.exists(home):
        os.mkdir(home)
        if DROP:
            shutil.chown(home, "nobody", "nogroup")
    server, port = SERVERS[name], free_port()
    return Job("tcp", [*DROP, *server.command(home, port)], home, port, server.stop_signal)


# -- the scenarios -----------------------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """One line of the table: every contender is measured, in milliseconds."""

    name: str
    measure: Callable[[Turn], float]
    idle: int = 0
    programs: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ("caseexec", "mirakuru", "loop")


SCENARIOS = [
    *(Scenario(f"start: {kind}", partial(start_overhead, kind)) for kind in KINDS if kind != "none"),
    Scenario("stop", stop_time),
    Scenario("early exit", early_exit),
    Scenario("cycle: tcp", partial(cycle, partial(service, "tcp", delay=0))),
    Scenario("cycle: command", partial(cycle, sleep_command)),
    *(Scenario(f"stop: {count} idle", stop_time, count) for count in (0, 500, 2000)),
    *(
        Scenario(f"server: {name}", partial(cycle, partial(server_job, name)), programs=(*server.programs, *DROP[:1]))
        for name, server in SERVERS.items()
    ),
    *(Scenario(f"import: {what}", partial(import_time, what)) for what in IMPORTS),
    Scenario("import: nothing", interpreter_time, contenders=("loop",)),
]


class Target(NamedTuple):
    """What caseexec's median of a line may be: *factor* times a contender's (of another line, if so), and *plus* ms."""

    line: str
    text: str
    factor: float
    contender: str
    plus: float = 0.0
    base: str = ""


TARGETS = [
    *(Target(f"start: {kind}", "1/20 of mirakuru", 1 / 20, "mirakuru") for kind in KINDS if kind != "none"),
    *(Target(f"start: {kind}", "loop + 1.5 ms", 1, "loop", 1.5) for kind in ("tcp", "http", "unix", "pid")),
    Target("start: output", "loop + 2.5 ms", 1, "loop", 2.5),
    Target("stop", "loop + 2 ms", 1, "loop", 2),
    Target("early exit", "1.5 ms", 0, "caseexec", 1.5),
    Target("cycle: tcp", "1.5 x loop + 3 ms", 1.5, "loop", 3),
    Target("cycle: command", "1.5 x loop + 3 ms", 1.5, "loop", 3),
    Target("stop: 2000 idle", "1.3 x with 0 idle", 1.3, "caseexec", base="stop: 0 idle"),
    *(Target(f"server: {name}", "1.2 x loop", 1.2, "loop") for name in SERVERS),
    Target("import: package", "1/2 of mirakuru", 1 / 2, "mirakuru"),
]


# -- the run -----------------------------------------------------------------------------------------------------------

Samples = dict[str, dict[str, list[float]]]


@contextmanager
def idle_processes(count: int) -> Iterator[None]:
    """Keep the machine populated; they end with the block, and also when this process is killed."""
    if not count:
        yield
        return
    keeper = subprocess.Popen(
        [*SERVICE, "idle", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"ready\n":
            raise SystemExit(f"{count} idle processes could not be started")
        yield
    finally:
        keeper.communicate()  # Closes its stdin, and waits until all have ended.


def play(scenario: Scenario, makers: dict[str, Contender], work: str) -> dict[str, float]:
    """One round of one scenario: every contender once, in random order."""
    delay = random.uniform(0, LONGEST_DELAY)
    names = [name for name in makers if name in scenario.contenders]
    times: dict[str, float] = {}
    for name in random.sample(names, len(names)):
        with tempfile.TemporaryDirectory(dir=work) as home:
            times[name] = scenario.measure(Turn(name, makers[name], work, home, delay))
    return times


def run(scenarios: Sequence[Scenario], makers: dict[str, Contender], rounds: int, work: str) -> Samples:
    samples: Samples = {scenario.name: {name: [] for name in makers} for scenario in scenarios}
    for scenario in scenarios:  # To warm up: files into the cache, initdb.
        play(scenario, makers, work)
    for first in range(0, rounds, CHUNK):
        for idle in sorted({scenario.idle for scenario in scenarios}):
            with idle_processes(idle):
                for number in range(first, min(first + CHUNK, rounds)):
                    progress(f"round {number + 1} of {rounds}, {idle} idle processes")
                    for scenario in (each for each in scenarios if each.idle == idle):
                        for name, value in play(scenario, makers, work).items():
                            samples[scenario.name][name].append(value)
    progress("")
    return samples


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def selected(only: Sequence[str]) -> list[Scenario]:
    """The scenarios that were asked for and can be measured here."""
    found = []
    for scenario in SCENARIOS:
        missing = [name for name in scenario.programs if not program(name)]
        if only and not any(part in scenario.name for part in only):
            continue
        if missing:
            print(f"{scenario.name} is skipped: there is no {', '.join(missing)}")
            continue
        found.append(scenario)
    if not found:
        raise SystemExit("there is nothing to measure")
    return found


# -- the report --------------------------------------------------------------------------------------------------------


class Summary(NamedTuple):
    """A contender's times of one scenario, in milliseconds."""

    median: float
    p95: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.p95:.2f})"


Summaries = dict[str, dict[str, Summary]]


def summarize(samples: Samples) -> Summaries:
    return {
        line: {
            name: Summary(statistics.median(times), sorted(times)[math.ceil(0.95 * len(times)) - 1])
            for name, times in by_name.items()
            if times
        }
        for line, by_name in samples.items()
    }


def table(summaries: Summaries) -> str:
    form = "{:16} {:>18} {:>18} {:>18} {:>9} {:>9}"
    lines = [form.format("", "caseexec", "mirakuru", "loop", "/mirakuru", "-loop")]
    for line, found in summaries.items():
        ours, peer, loop = (found.get(name) for name in ("caseexec", "mirakuru", "loop"))
        ratio = f"{ours.median / peer.median:.3f}" if ours and peer else "-"
        above = f"{ours.median - loop.median:+.2f}" if ours and loop else "-"
        lines.append(form.format(line, *(str(each or "-") for each in (ours, peer, loop)), ratio, above))
    return "\n".join(lines)


@dataclass(frozen=True)
class Verdict:
    """A target, and what came of it; ``None`` when it was not measured."""

    line: str
    target: str
    limit: float | None = None
    median: float | None = None
    met: bool | None = None

    def __str__(self) -> str:
        if self.met is None:
            return f"not measured  {self.line}: at most {self.target}"
        text = f"{self.line}: at most {self.target} ({self.median:.2f} of {self.limit:.2f} ms)"
        return f"{'met' if self.met else 'NOT MET':13} {text}"


def judge(target: Target, summaries: Summaries) -> Verdict:
    ours = summaries.get(target.line, {}).get("caseexec")
    base = summaries.get(target.base or target.line, {}).get(target.contender)
    if ours is None or base is None:
        return Verdict(target.line, target.text)
    limit = target.factor * base.median + target.plus
    return Verdict(target.line, target.text, limit, ours.median, ours.median <= limit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure caseexec, mirakuru and a loop written by hand side by side.")
    parser.add_argument("--rounds", type=int, default=30, help="how often everything is measured (default: 30)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="the lines with this in their name")
    parser.add_argument("--json", metavar="FILE", help="write every single time there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # Ends what runs, as Ctrl-C does.
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {options.rounds} rounds; milliseconds: median (95th percentile)\n")
    with tempfile.TemporaryDirectory(prefix="compare-") as work:
        os.chmod(work, 0o711)  # Servers that are not root go through it.
        tempfile.tempdir = work  # What a contender leaves in the temporary directory goes with it.
        samples = run(selected(options.only), contenders(), max(1, options.rounds), work)
    summaries = summarize(samples)
    verdicts = [judge(target, summaries) for target in TARGETS]
    print(table(summaries), "", *verdicts, sep="\n", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            found = {line: {name: each._asdict() for name, each in by.items()} for line, by in summaries.items()}
            targets = [vars(verdict) for verdict in verdicts]
            json.dump({"machine": machine, "summaries": found, "targets": targets, "samples": samples}, file, indent=1)


if __name__ == "__main__":
    main()
