"""A PostgreSQL that is ready, and a fresh database: caseexec, a hand, and two libraries in one interleaved run.

caseexec is there twice: as it is, with its data in memory where there is plenty, and with its data on disk.

``python -m benchmarks.postgresql [--rounds N] [--json FILE]``; README.rst tells what is measured. Not as root, as the
libraries do not run PostgreSQL as somebody else then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.util import find_spec

import psycopg

from benchmarks.ports import HOST, free_port
from caseexec.scopes import Launch
from caseexec.servers import PostgreSQL, PostgreSQLExecutor

NEEDED = {"testing.postgresql": "testing.postgresql", "pytest_postgresql": "pytest-postgresql"}
TABLES = 20  # of the template that a fresh database is a copy of

Contender = Callable[[str], Iterator[float]]
"""Starts one in an empty directory, yields the milliseconds that took, and stops it."""


def now() -> float:
    return time.monotonic_ns() / 1e6


def answers(**where: object) -> bool:
    try:
        with psycopg.connect(**where, user="postgres", dbname="postgres") as connection:  # type: ignore[arg-type]
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def caseexec(home: str, on_disk: bool = False) -> Iterator[float]:
    tempfile.tempdir = home if on_disk else None
    launch, begun = Launch(PostgreSQL(), "benchmark", "db"), now()
    launch.start()
    try:
        yield now() - begun
    finally:
        launch.stop()
        tempfile.tempdir = None


def by_hand(home: str, copied: bool) -> Iterator[float]:
    """As one writes it: copy, start, and ask each millisecond. The options are caseexec's."""
    data, template = f"{home}/data", os.path.join(os.environ["TEMPLATE"], "data")
    if copied:
        subprocess.run(["cp", "-R", template, data], check=True)
    begun = now()
    if not copied:
        subprocess.run(["cp", "-R", template, data], check=True)
    program, port = PostgreSQL().find_program(), free_port()
    settings = {"listen_addresses": HOST, "port": port, "unix_socket_directories": home}
    settings |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with open(f"{home}/log", "wb") as log:
        process = subprocess.Popen([f"{program}", "-D", data, *options], stdout=log, stderr=log)
    try:
        while not answers(host=home, port=port):
            time.sleep(0.001)
        yield now() - begun
    finally:
        process.send_signal(2)
        process.wait()


def testing_postgresql(home: str) -> Iterator[float]:
    import testing.postgresql

    directory = os.path.dirname(f"{PostgreSQL().find_program()}")
    begun = now()
    server = testing.postgresql.Postgresql(initdb=f"{directory}/initdb", postgres=f"{directory}/postgres")
    try:
        yield now() - begun
    finally:
        server.stop()


def pytest_postgresql(home: str) -> Iterator[float]:
    from pytest_postgresql.executors import PostgreSQLExecutor as Theirs

    directory = os.path.dirname(f"{PostgreSQL().find_program()}")
    begun = now()
    executor = Theirs(
        f"{directory}/pg_ctl", HOST, free_port(), f"{home}/data", home, f"{home}/log", "-w", "tests", password="secret"
    )
    executor.start()
    executor.wait_for_postgres()
    try:
        yield now() - begun
    finally:
        executor.stop()


CONTENDERS: dict[str, Contender] = {
    "caseexec": caseexec,
    "caseexec, on disk": partial(caseexec, on_disk=True),
    "hand: copy and start": partial(by_hand, copied=False),
    "hand: start only": partial(by_hand, copied=True),
    "testing.postgresql": testing_postgresql,
    "pytest-postgresql": pytest_postgresql,
}


@contextmanager
def home_in(work: str) -> Iterator[str]:
    home = tempfile.mkdtemp(dir=work)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def measure(contender: Contender, work: str) -> float:
    with home_in(work) as home:
        turn = contender(home)
        took = next(turn)
        next(turn, None)
        return took


def starts(rounds: int, work: str) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(rounds + 1):
        for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
            took = measure(CONTENDERS[name], work)
            if number:  # The first is to warm up.
                samples[name].append(took)
    return samples


def databases(rounds: int) -> dict[str, list[float]]:
    """A fresh database for each test: made, asked by a client, and dropped."""
    launch = Launch(PostgreSQL(), "benchmark", "db")
    launch.start()
    try:
        assert isinstance(launch.executor, PostgreSQLExecutor)
        return _databases(launch.executor, rounds)
    finally:
        launch.stop()


def _databases(server: PostgreSQLExecutor, rounds: int) -> dict[str, list[float]]:
    template = server.database("shop")
    with closing(psycopg.connect(template.dsn, autocommit=True)) as connection:
        for number in range(TABLES):
            connection.execute(f"CREATE TABLE t{number} (id serial PRIMARY KEY, name text UNIQUE)")  # type: ignore[call-overload]
    samples: dict[str, list[float]] = {"empty": [], f"of {TABLES} tables": []}
    for _ in range(rounds):
        for name, source in zip(samples, ("template1", "shop"), strict=True):
            begun = now()
            with server.database(template=source) as database, closing(psycopg.connect(database.dsn)) as connection:
                connection.execute("SELECT 1")
            samples[name].append(now() - begun)
    return samples


def table(samples: dict[str, list[float]], base: str) -> Iterator[str]:
    middle = statistics.median(samples[base])
    for name, times in samples.items():
        found = statistics.median(times)
        yield f"{name:24}{found:9.1f}{min(times):9.1f}{max(times):9.1f}{found / middle:10.2f}"


def verdicts(start: dict[str, list[float]], fresh: dict[str, list[float]]) -> Iterator[str]:
    median = {name: statistics.median(times) for name, times in {**start, **fresh}.items()}
    ours = median["caseexec"]
    for name in ("hand: copy and start", "hand: start only"):
        met = ours <= 1.5 * median[name]
        yield f"{'met' if met else 'NOT MET':9} at most 1.5 times {name} ({ours / median[name]:.2f})"
    for name in ("testing.postgresql", "pytest-postgresql"):
        met = median[name] >= 5 * ours
        yield f"{'met' if met else 'NOT MET':9} 5 times as fast as {name} ({median[name] / ours:.2f})"
    for name in fresh:
        met = median[name] <= 60
        yield f"{'met' if met else 'NOT MET':9} a fresh database, {name}: at most 60 ms ({median[name]:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="write every single time into this file")
    arguments = parser.parse_args()
    missing = [package for module, package in NEEDED.items() if find_spec(module.partition(".")[0]) is None]
    if os.geteuid() == 0 or missing:
        sys.exit(f"not installed: pip install {' '.join(missing)}" if missing else "run it as an ordinary user")
    with tempfile.TemporaryDirectory() as work:
        os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
        measure(caseexec, work)  # It makes the template.
        (os.environ["TEMPLATE"],) = (entry.path for entry in os.scandir(f"{work}/cache/caseexec") if entry.is_dir())
        start = starts(arguments.rounds, work)
        fresh = databases(3 * arguments.rounds)
    version, cores = PostgreSQL().version(), os.cpu_count()
    print(f"Python {platform.python_version()}, PostgreSQL {version}, {cores} cores; milliseconds\n")
    print(f"{'ready':24}{'median':>9}{'min':>9}{'max':>9}{'/caseexec':>10}", *table(start, "caseexec"), sep="\n")
    print(f"\n{'a fresh database':24}{'median':>9}{'min':>9}{'max':>9}", *table(fresh, "empty"), sep="\n")
    print("", *verdicts(start, fresh), sep="\n")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"start": start, "fresh": fresh}, file)


if __name__ == "__main__":
    main()
