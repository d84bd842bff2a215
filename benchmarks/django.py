"""``manage.py test`` on a PostgreSQL that the runner starts, and on one that is up already, in one interleaved run.

``python -m benchmarks.django [--rounds N]``; README.rst tells what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from caseexec.scopes import Launch
from caseexec.servers import PostgreSQL

PROJECT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "django_project")
STARTED = """
from caseexec.servers import PostgreSQL
from project.settings import *
TEST_RUNNER = "caseexec.django.ServicesRunner"
CASEEXEC_SERVICES = {"default": PostgreSQL()}
"""


def seconds(project: str, settings: str, **variables: str) -> float:
    command = [sys.executable, "manage.py", "test", "-v0", "shop.tests.tests_run.TransactionTests"]
    begun = time.monotonic()
    subprocess.run(
        [*command, "--settings", settings], cwd=project, env={**os.environ, "VENDOR": "postgresql", **variables},
        check=True, capture_output=True,
    )  # fmt: skip
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    launch = Launch(PostgreSQL(), "benchmark", "db")
    there = json.dumps(launch.start().django_settings())  # type: ignore[attr-defined]
    found: dict[str, list[float]] = {"started by the runner": [], "up already": []}
    with tempfile.TemporaryDirectory() as directory:
        project = shutil.copytree(PROJECT, os.path.join(directory, "project"))
        with open(os.path.join(project, "project", "started.py"), "w") as file:
            file.write(STARTED)
        for number in range(rounds + 1):
            for name in random.sample(list(found), len(found)):
                settings = "project.started" if name == "started by the runner" else "project.settings"
                took = seconds(project, settings, **({} if settings == "project.started" else {"DATABASE": there}))
                if number:  # The first fills the caches.
                    found[name].append(took)
    launch.stop()
    for name, times in found.items():
        print(f"{name:<24}{statistics.median(times):8.3f} s")
    differences = [one - other for one, other in zip(*found.values(), strict=True)]
    print(f"{'difference':<24}{statistics.median(differences):8.3f} s")


if __name__ == "__main__":
    main()
