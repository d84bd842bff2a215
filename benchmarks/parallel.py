"""How long a class takes to start several services that each need a second: side by side, and one after another.

``python -m benchmarks.parallel [--rounds N] [--json FILE]``; README.rst tells what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from benchmarks.compare import SERVICE, Executor, Job, Loop, library, now, progress, stamp
from benchmarks.ports import HOST, free_port
from benchmarks.runs import run

COUNTS = (1, 2, 4, 8)
LIMIT = 1100.0  # milliseconds
SECOND = "1"
CONTENDERS = ("caseexec", "loop", "mirakuru")
CLASSES = ("first class", "later class")  # of one run


class Kind(NamedTuple):
    """A service that is ready after a second; {home} and {port} are filled in."""

    command: list[str]
    stop_signal: int = signal.SIGTERM
    stamps: bool = False

    def filled(self, home: str, port: object) -> list[str]:
        return [part.replace("{home}", home).replace("{port}", str(port)) for part in self.command]


KINDS = {
    "python": Kind([*SERVICE, "tcp", "{home}", "{port}", SECOND], stamps=True),
    # Next to nothing to do for the machine, neither before the second nor after it.
    "light": Kind(["sh", "-c", f"sleep {SECOND}; exec memcached -u nobody -l {HOST} -p {{port}} -U 0"], signal.SIGKILL),
}


class Times(NamedTuple):
    """What a class took, in milliseconds; *after*: of the set-up, what came after all its services were ready."""

    set_up: float
    after: float
    tear_down: float


Samples = dict[tuple[int, str], list[list[Times]]]


class Class(NamedTuple):
    """How a class starts and stops its services, and where those have their stamps once they are started."""

    start: Callable[[], object]
    stop: Callable[[], object]
    jobs: Callable[[], list[Job]]


# -- the contenders ----------------------------------------------------------------------------------------------------


def with_caseexec(kind: Kind, count: int, place: str) -> Class:
    from caseexec import ServicesMixin, TCPService

    services = {
        f"service{number}": TCPService(kind.filled("{tmp}", "{port}"), stop_signal=kind.stop_signal)
        for number in range(count)
    }
    case: type[unittest.TestCase] = type("Case", (ServicesMixin,), dict(services))

    def stop() -> None:
        case.tearDownClass()
        case.doClassCleanups()

    return Class(case.setUpClass, stop, lambda: [Job("tcp", [], getattr(case, name).tmp) for name in services])


def jobs(kind: Kind, count: int, place: str) -> list[Job]:
    found = []
    for _ in range(count):
        home, port = tempfile.mkdtemp(dir=place), free_port()
        found.append(Job("tcp", kind.filled(home, port), home, port, kind.stop_signal))
    return found


def with_mirakuru(kind: Kind, count: int, place: str) -> Class:
    import mirakuru

    todo = jobs(kind, count, place)
    executors: list[Executor] = [library(mirakuru, job) for job in todo]
    return Class(
        lambda: [executor.start() for executor in executors],
        lambda: [executor.stop() for executor in reversed(executors)],
        lambda: todo,
    )


def with_a_loop(kind: Kind, count: int, place: str) -> Class:
    todo = jobs(kind, count, place)
    loops = [Loop(job) for job in todo]

    def side_by_side(work: Callable[[Loop], None]) -> None:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, loops))

    return Class(lambda: side_by_side(Loop.start), lambda: side_by_side(Loop.stop), lambda: todo)


MAKERS = dict(zip(CONTENDERS, (with_caseexec, with_a_loop, with_mirakuru), strict=True))

# -- the run -----------------------------------------------------------------------------------------------------------


def one_class(made: Class, stamps: bool) -> Times:
    begun = now()
    try:
        made.start()
        started = now()
        ready = max(map(stamp, made.jobs())) if stamps else started
    finally:
        stopping = now()
        made.stop()
    return Times(started - begun, started - ready, now() - stopping)


def one_run(contender: str, kind: Kind, count: int) -> list[Times]:
    """Two classes of one run, one after the other."""
    found = []
    for _ in CLASSES:
        with tempfile.TemporaryDirectory() as place:
            found.append(one_class(MAKERS[contender](kind, count, place), kind.stamps))
    return found


def measure(kind: str, rounds: int, work: str) -> Samples:
    """Each number of services with each contender once a round, in random order, in a process of its own."""
    found: Samples = {(count, name): [] for count in COUNTS for name in CONTENDERS}
    for number in range(rounds):
        for count, name in random.sample(list(found), len(found)):
            progress(f"{kind}: round {number + 1} of {rounds}, {count} with {name}")
            command = [sys.executable, "-m", "benchmarks.parallel", "--one", name, kind, str(count)]
            ended = run(command, work, os.environ)
            if ended.code:
                raise SystemExit(ended.output)
            found[count, name].append([Times(*each) for each in json.loads(ended.output)])
    progress("")
    return found


# -- the report --------------------------------------------------------------------------------------------------------


def table(kind: str, samples: Samples) -> str:
    lines = [f"{kind:10}" + "".join(f"{name:>30}" for name in CONTENDERS)]
    for number, which in enumerate(CLASSES):
        lines.append(f"{which:12}" + f"{'set-up':>10}{'after':>8}{'tear-down':>10}  " * len(CONTENDERS))
        for count in COUNTS:
            lines.append(f"{count:10}  " + "".join(row(kind, samples[count, name], number) for name in CONTENDERS))
    return "\n".join(lines)


def row(kind: str, runs: list[list[Times]], number: int) -> str:
    set_up, after, tear_down = medians(runs, number)
    told = f"{after:.1f}" if KINDS[kind].stamps else "-"
    return f"{set_up:10.1f}{told:>8}{tear_down:10.1f}  "


def medians(runs: list[list[Times]], number: int) -> Times:
    return Times(*(statistics.median(each) for each in zip(*(run[number] for run in runs), strict=True)))


def verdicts(kind: str, samples: Samples) -> Iterator[str]:
    for count in COUNTS:
        for number, which in enumerate(CLASSES):
            taken = medians(samples[count, "caseexec"], number).set_up
            text = f"{kind}, {count} services, {which}: at most {LIMIT:.0f} ms ({taken:.1f})"
            yield f"{'met' if taken <= LIMIT else 'NOT MET':13} {text}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every single time there")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, kind, count = options.one
        print(json.dumps(one_run(name, KINDS[kind], int(count))))
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # Ends what runs, as Ctrl-C does.
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {options.rounds} rounds; milliseconds, medians\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="parallel-") as work:
        found = {kind: measure(kind, options.rounds, work) for kind in KINDS}
    for kind, samples in found.items():
        print(table(kind, samples), *verdicts(kind, samples), "", sep="\n")
    if options.json:
        with open(options.json, "w") as file:
            listed = {kind: [[*which, runs] for which, runs in samples.items()] for kind, samples in found.items()}
            json.dump({"machine": machine, "samples": listed}, file, indent=1)


if __name__ == "__main__":
    main()
