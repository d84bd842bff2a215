"""Run the suite in each form, as a user does, in interleaved rounds.

``python -m benchmarks.suite [--classes N] [--rounds N] [--only FORM] [--json FILE]``; README.rst tells how.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.compare import DROP, program, progress
from benchmarks.runs import run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = 5  # of each class
SERVERS = ("redis-server", "memcached", "nginx", "initdb", "postgres")


class Form(NamedTuple):
    """A form of the suite: the base of its classes, and the runner."""

    module: str
    base: str
    runner: tuple[str, ...] = ("unittest", "-q")


FORMS = {
    "caseexec, session": Form("with_caseexec", "SessionShop"),
    "caseexec, class": Form("with_caseexec", "ClassShop"),
    "mirakuru": Form("with_mirakuru", "MirakuruShop"),
    "caseexec, session, pytest": Form("with_caseexec", "SessionShop", ("pytest", "-q", "-p", "no:cacheprovider")),
}
# What a run that passes has to say, and nothing else but that it waits, where a start takes seconds.
WAITING = re.compile(r"^caseexec: waiting for .*\n", re.MULTILINE)
PASSED = {
    "unittest": r"-+\nRan {tests} tests in [\d.]+s\n\nOK\n",
    "pytest": r"[.\s\d%\[\]]*\n{tests} passed in [^\n]+\n",
}


class Result(NamedTuple):
    """What one run took, in seconds: all of it, and of each class the set-up, the tests and the tear-down."""

    wall: float
    classes: list[list[float]]


# -- before the timing -------------------------------------------------------------------------------------------------


def environment(work: str) -> dict[str, str]:
    """What the forms are given, with a database made for all of them."""
    missing = [name for name in (*SERVERS, *DROP[:1]) if not program(name)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    places = {os.path.dirname(program(name) or "") for name in SERVERS}
    found = {
        **os.environ, "PATH": os.pathsep.join([*sorted(places), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": ROOT, "SHOP_DATABASE": os.path.join(work, "database"), "SHOP_USER": " ".join(DROP),
        "SHOP_GIVE": "chown nobody:nogroup" if DROP else ":",
    }  # fmt: skip
    make_database(found)
    return found


def make_database(found: Mapping[str, str]) -> None:
    path = found["SHOP_DATABASE"]
    os.mkdir(path, 0o700)
    if DROP:
        shutil.chown(path, "nobody", "nogroup")

    def run_as_user(*command: str, say: str = "") -> None:
        subprocess.run([*DROP, *command], cwd=path, env=found, input=say, text=True, check=True, capture_output=True)

    run_as_user(
        "initdb",
        "-D",
        path,
        "-A",
        "trust",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
        "--wal-segsize=1",
    )
    tables = "CREATE TABLE visits (page text)\nCREATE TABLE fruit (name text)\n"  # One command a line.
    run_as_user("postgres", "--single", "-D", path, "-c", "fsync=off", "postgres", say=tables)


def write_suites(place: str, classes: int) -> None:
    """Write the test modules, each into a directory of its own."""
    for base, module in {form.base: form.module for form in FORMS.values()}.items():
        os.makedirs(os.path.join(place, base))
        with open(os.path.join(place, base, "test_shop.py"), "w") as file:
            print(f"from benchmarks.suite import {module}", file=file)
            for number in range(1, classes + 1):
                print(f"\n\nclass Shop{number:02}Tests({module}.{base}):\n    pass", file=file)


# -- the runs ----------------------------------------------------------------------------------------------------------


def play(
    forms: Sequence[str], classes: int, rounds: int, work: str, given: Mapping[str, str]
) -> dict[str, list[Result]]:
    """Run each form once a round, in random order."""
    place = tempfile.mkdtemp(dir=work)
    os.chmod(place, 0o711)  # PostgreSQL goes through it, as another user.
    write_suites(place, classes)
    results: dict[str, list[Result]] = {name: [] for name in forms}
    for number in range(rounds):
        for name in random.sample(forms, len(forms)):
            progress(f"round {number + 1} of {rounds}: {name}, {classes} classes")
            results[name].append(measure(FORMS[name], classes, place, given))
    progress("")
    return results


def measure(form: Form, classes: int, place: str, given: Mapping[str, str]) -> Result:
    """Run a form; it has to pass, without another word, and to leave nothing.

    :raises SystemExit: it has not.
    """
    times = os.path.join(place, "times")
    command = [sys.executable, "-m", *form.runner, "test_shop.py"]
    ended = run(command, place, {**given, "SHOP_TIMES": times}, cwd=os.path.join(place, form.base))
    said = WAITING.sub("", ended.output)
    if ended.code or not re.fullmatch(PASSED[form.runner[0]].format(tests=classes * TESTS), said):
        raise SystemExit(f"{' '.join(command)} ended with {ended.code}:\n{ended.output}")
    with open(times) as file:
        found = [list(map(float, line.split())) for line in file]
    os.unlink(times)
    return Result(ended.seconds, found)


# -- the report --------------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """The figures of each form: of its runs in seconds, of its classes in milliseconds."""
    base = [result.wall for result in results.get("mirakuru", ())]
    form = "{:27} {:>8} {:>8} {:>8} {:>10}   {:>8} {:>8} {:>9}"
    lines = [form.format("", "median", "min", "max", "/mirakuru", "set-up", "tests", "tear-down")]
    for name, runs in results.items():
        walls = [result.wall for result in runs]
        each = zip(*(times for result in runs for times in result.classes), strict=True)
        parts = [f"{statistics.median(part) * 1000:.1f}" for part in each]
        ratio = f"{statistics.median(walls) / statistics.median(base):.3f}" if base else "-"
        figures = [f"{figure:.2f}" for figure in (statistics.median(walls), min(walls), max(walls))]
        lines.append(form.format(name, *figures, ratio, *parts))
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("--classes", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--only", action="append", choices=FORMS, metavar="FORM", help=f"{'; '.join(FORMS)}")
    parser.add_argument("--json", metavar="FILE", help="write every single time there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # Ends what runs, as Ctrl-C does.
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    forms = options.only or list(FORMS)
    print(f"{machine}, {options.classes} classes, {options.classes * TESTS} tests, {options.rounds} rounds\n")
    with tempfile.TemporaryDirectory(prefix="suite-") as work:
        os.chmod(work, 0o711)
        given = environment(work)
        play(forms, 1, 1, work, given)  # To warm up: files into the cache.
        results = play(forms, options.classes, options.rounds, work, given)
    print(table(results))
    print(f"\nload at the end {os.getloadavg()[0]:.1f}; seconds of a whole run; medians of the classes in milliseconds")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "results": {name: results[name] for name in forms}}, file, indent=1)


if __name__ == "__main__":
    main()
