"""What it costs that nothing is left: the reaper and the cgroup, each on and off, in one interleaved run.

``python -m benchmarks.leaks [--rounds N]``; README.rst tells what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.compare import SERVICE, now
from benchmarks.ports import free_port

LATER = 8  # starts in one run after the first
# Between two starts (seconds): a kernel that has just moved a process moves the next one faster.
LONGEST_PAUSE = 0.1
VARIANTS = {
    "both": {},
    "no reaper": {"CASEEXEC_REAPER": "0"},
    "no cgroup": {"CASEEXEC_CGROUP": "0"},
    "neither": {"CASEEXEC_REAPER": "0", "CASEEXEC_CGROUP": "0"},
}
# Each figure, and the pairs of variants whose difference is the cost of the one or the other.
REAPER = [("both", "no reaper"), ("no cgroup", "neither")]
CGROUP = [("both", "no cgroup"), ("no reaper", "neither")]


def one_run(kind: str) -> dict[str, float]:
    """A run with a first service and some more: milliseconds of the start and of the cycle, KiB of the reaper."""
    from caseexec import SimpleExecutor, TCPExecutor
    from caseexec.registry import current_run

    def cycle() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as home:
            port = free_port()
            command = [*SERVICE, "tcp", home, str(port), "0"]
            executor = TCPExecutor(command, "127.0.0.1", port) if kind == "tcp" else SimpleExecutor(["sleep", "120"])
            begun = now()
            executor.start()
            started = now()
            executor.stop()
            return started - begun, now() - begun

    first = cycle()
    later = []
    for _ in range(LATER):
        time.sleep(random.uniform(0, LONGEST_PAUSE))
        later.append(cycle())
    memory = 0.0
    with suppress(OSError, TypeError), open(f"/proc/{current_run().reaper.pid}/status") as file:
        memory = float(file.read().partition("VmRSS:")[2].split()[0])
    return {
        "first start": first[0], "first cycle": first[1], "memory": memory,
        "later start": statistics.median(start for start, _ in later),
        "later cycle": statistics.median(whole for _, whole in later),
    }  # fmt: skip


def measure(kind: str, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run every variant once a round, in random order."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name in random.sample(list(VARIANTS), len(VARIANTS)):
            environment = {**os.environ, **VARIANTS[name]}
            command = [sys.executable, "-m", "benchmarks.leaks", "--one", kind]
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            found[name].append(json.loads(output))
    return found


def tell(kind: str, found: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians, and the costs: the medians of the differences within a round."""
    print(f"{kind:12} {'  '.join(f'{name:>12}' for name in found)} {'reaper':>16} {'cgroup':>16}")
    for figure in ("first start", "first cycle", "later start", "later cycle"):
        medians = "  ".join(f"{statistics.median(run[figure] for run in runs):12.2f}" for runs in found.values())
        print(f"{figure:12} {medians} {cost(found, figure, REAPER):>16} {cost(found, figure, CGROUP):>16}")
    print(f"{'memory':12} {statistics.median(run['memory'] for run in found['both']) / 1024:12.2f} MiB\n")


def cost(found: dict[str, list[dict[str, float]]], figure: str, pairs: Sequence[tuple[str, str]]) -> str:
    """What the first of a pair costs above the second, for both pairs."""
    differences = [
        statistics.median(on[figure] - off[figure] for on, off in zip(found[one], found[other], strict=True))
        for one, other in pairs
    ]
    return " / ".join(f"{difference:+.2f}" for difference in differences)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="(%(default)s)")
    parser.add_argument("--one", choices=("tcp", "command"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_run(options.one)))
        return
    for kind in ("tcp", "command"):
        tell(kind, measure(kind, options.rounds))


if __name__ == "__main__":
    main()
