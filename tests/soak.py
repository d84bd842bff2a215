"""Runs with random services that are hit by random faults at random moments, for as long as one likes.

``python -m tests.soak --minutes 20 --seed 1`` tells each minute, and at the end, how many there were, what remained of
them, and whether anybody else was harmed. What a seed leads to can be repeated, one run alone: ``--seed 1 --only 17``.
(The moments are the same then; what the run has come to by then is up to the machine.)
"""

import argparse
import collections
import itertools
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from caseexec import cgroup, processes
from tests.helpers.faults import FaultyRun
from tests.helpers.soaked import COMMANDS

# Seconds after the end of a run: what remains then is a survivor; what remains at PROMISED is late.
LIMIT, PROMISED = 10.0, 2.0
# A run that does not end in so many seconds hangs.
PATIENCE = 90.0

RUNNERS = {"unittest": 60, "unittest -c": 10, "pytest": 20, "pytest -n 2": 10}
OUTSIDE = {"sigkill": 30, "sigterm": 15, "ctrl_c": 15, "ctrl_c_twice": 15}
INSIDE = {"os_exit": 8, "sys_exit": 4, "exception": 4, "skip_test": 2}
PLACES = ("set_up_class", "a_test", "tear_down_class")


@dataclass(frozen=True)
class Plan:
    """What is to happen in one run: all of it follows from the seed and the number."""

    runner: str
    kinds: tuple[str, ...]
    cgroup: str
    seconds: float
    #: What comes from outside, and how long after what was before.
    hits: tuple[tuple[float, str], ...]
    fault: str
    place: str
    loses_reaper: bool

    @classmethod
    def draw(cls, seed: int, number: int) -> "Plan":
        chance = random.Random(f"{seed} {number}")
        switch = chance.choice(("1", "1", "0")) if cgroup.parent() else "0"
        # Nobody but a cgroup can know whose that daemon is.
        kinds = [kind for kind in COMMANDS if kind != "vanishing" or switch == "1"]
        end = chance.choices([*OUTSIDE, *INSIDE, ""], [*OUTSIDE.values(), *INSIDE.values(), 5])[0]
        hits: list[tuple[float, str]] = []
        if chance.random() < 0.2:
            hits.append((chance.uniform(0.1, 0.6), "a service"))
        if end == "ctrl_c_twice":
            hits += [(chance.uniform(0, 1), "ctrl_c"), (chance.uniform(0, 0.2), "ctrl_c")]
        elif end in OUTSIDE:
            hits.append((chance.uniform(0, 1), end))
        return cls(
            runner=chance.choices([*RUNNERS], [*RUNNERS.values()])[0],
            kinds=tuple(chance.choices(kinds, k=chance.randint(1, 3))),
            cgroup=switch,
            seconds=chance.uniform(0.2, 1),
            hits=tuple(hits),
            fault=end if end in INSIDE else "",
            place=chance.choice(PLACES) if end in INSIDE else "",
            loses_reaper=chance.random() < 0.15,
        )

    def begin(self, directory: str, number: int) -> FaultyRun:
        module = f"""
            from tests.helpers import soaked

            class Case(soaked.Soaked):
                seed, kinds, seconds = {number}, {self.kinds!r}, {self.seconds}
                fault, place, loses_reaper = {self.fault!r}, {self.place!r}, {self.loses_reaper}
        """
        return FaultyRun(directory, self.runner, module, CASEEXEC_CGROUP=self.cgroup)


@dataclass
class Figures:
    """What has happened so far."""

    begun: float = field(default_factory=time.monotonic)
    runs: int = 0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    services: collections.Counter[str] = field(default_factory=collections.Counter)
    survivors: int = 0
    late: int = 0
    harmed: int = 0
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        times = self.seconds or [0.0]
        return (
            f"{(time.monotonic() - self.begun) / 60:.1f} min: {self.runs} runs, {self.faults.total()} faults, "
            f"{self.services.total()} services started, {self.survivors} survivors, {self.harmed} bystanders harmed, "
            f"{self.late} runs took longer than {PROMISED:g} s to leave nothing "
            f"(median {statistics.median(times):.3f} s, most {max(times):.3f} s)"
        )


class Soak:
    """Some runs at a time, each a generator that says for how many seconds it has nothing to do."""

    def __init__(self, seed: int, directory: str) -> None:
        self.seed = seed
        self.directory = directory
        self.figures = Figures()

    def run(self, numbers: Iterator[int], jobs: int) -> None:
        """Begin the runs of these numbers, and wait until all have ended."""
        due: dict[Generator[float], float] = {}
        tell = time.monotonic() + 60
        try:
            while True:
                for number in itertools.islice(numbers, jobs - len(due)):
                    due[self.live(number)] = 0.0
                if not due:
                    return
                life = min(due, key=due.__getitem__)
                time.sleep(max(0.0, due[life] - time.monotonic()))
                pause = next(life, None)
                if pause is None:
                    del due[life]
                else:
                    due[life] = time.monotonic() + pause
                if time.monotonic() >= tell:
                    tell += 60
                    print(self.figures, flush=True)
        finally:
            for life in due:
                life.close()

    def live(self, number: int) -> Generator[float]:
        """The life of one run."""
        plan = Plan.draw(self.seed, number)
        directory = os.path.join(self.directory, str(number))
        os.mkdir(directory)
        run = plan.begin(directory, number)
        try:
            run.start_bystander()
            end = time.monotonic() + PATIENCE
            # A run whose worker is killed while its reaper is, too, leaks; nobody has promised otherwise.
            workers = 2 if plan.runner == "pytest -n 2" else 1
            while plan.loses_reaper and len(run.noted("replaced")) < workers and run.process.poll() is None:
                yield 0.01
            for pause, fault in plan.hits:
                yield pause
                self.hit(run, fault, number)
            while not run.is_over(LIMIT) and time.monotonic() < end:
                yield 0.01
            self.judge(run, plan, number)
        finally:
            run.close()
        shutil.rmtree(directory)

    def hit(self, run: FaultyRun, fault: str, number: int) -> None:
        if run.process.poll() is not None:
            return
        self.figures.faults[fault] += 1
        run.look()
        if fault == "ctrl_c":
            os.killpg(run.process.pid, signal.SIGINT)
        elif fault == "a service":
            self.kill_a_service(run, number)
        else:
            run.hit(fault)

    def kill_a_service(self, run: FaultyRun, number: int) -> None:
        services = run.services()
        if services:
            run.logs_may_stay = True  # The error of its stop names it, but the run may not live to tell.
            processes.table().send(services[number % len(services)], signal.SIGKILL)

    def judge(self, run: FaultyRun, plan: Plan, number: int) -> None:
        figures = self.figures
        figures.runs += 1
        figures.faults.update(run.noted("struck"))
        figures.faults["the reaper"] += len(run.noted("replaced"))
        figures.services.update(run.noted("started"))
        harmed = run.harmed()
        figures.harmed += bool(harmed)
        if run.ended is None:
            run.left = ["the run itself, which hangs"]
        figures.survivors += len(run.left)
        if run.ended is not None and not run.left:
            figures.seconds.append(run.seconds)
            if run.seconds > PROMISED:
                figures.late += 1
                print(f"late, {run.seconds:.2f} s: --seed {self.seed} --only {number}: {plan}", flush=True)
        if run.left or harmed:
            print(
                f"\n--seed {self.seed} --only {number}: {plan}", *run.left, *harmed, run.story(), sep="\n", flush=True
            )


def main() -> int:
    """Do what the command line says; 1: something survived, or somebody else was harmed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time")
    parser.add_argument("--only", type=int, help="the number of the only run to repeat")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    endless = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(1))
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        soak = Soak(options.seed, directory)
        soak.run(iter([options.only]) if options.only is not None else endless, options.jobs)
    print(f"\n{soak.figures}", *map(str, (soak.figures.faults, soak.figures.services)), sep="\n")
    return 1 if soak.figures.survivors or soak.figures.harmed else 0


if __name__ == "__main__":
    sys.exit(main())
