"""The tutorial of Django, line by line: its files are written, its commands run, and what they print is compared."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap
import unittest
from collections.abc import Iterator
from typing import NamedTuple

from tests.helpers.runs import ROOT, RunCase
from tests.integration.servers import require

PAGE = pathlib.Path(ROOT, "docs", "tutorial", "django.rst")


class Block(NamedTuple):
    """A block of code: its language, its caption, and its text."""

    language: str
    caption: str
    text: str


def blocks() -> Iterator[Block]:
    pattern = r"^\.\. code-block:: (\w+)\n(?:    :caption: (.*)\n)?\n((?:(?:    .*)?\n)+)"
    for language, caption, text in re.findall(pattern, PAGE.read_text(), re.MULTILINE):
        yield Block(language, caption, textwrap.dedent(text).strip("\n") + "\n")


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console, and what each prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def masked(text: str) -> str:
    return re.sub(r"in \d+\.\d+s", "in N s", text).strip()


@require("redis-server", "redis-server", client="redis")
@require("postgres", "postgresql", client="psycopg")
@require(client="django")
@require(client="pip")  # Not every virtual environment has it.
class TutorialTests(RunCase):
    def test_its_files_and_commands_in_an_empty_directory_do_what_it_says(self) -> None:
        self.directory = self.make_dir("empty")
        self.environment |= {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        del self.environment["PYTHONDEVMODE"]  # pip and startproject are not ours.
        self.environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        done = 0
        for block in blocks():
            if block.language == "python":
                self.write_file(block)
                continue
            for command, printed in commands(block.text):
                self.assertEqual(masked(self.run_command(command)), masked(printed), command)
                done += 1
        self.assertGreater(done, 6)

    def write_file(self, block: Block) -> None:
        name, _, at_its_end = block.caption.partition(", ")
        with open(os.path.join(self.directory, name), "a" if at_its_end else "w") as file:
            file.write(f"\n\n{block.text}" if at_its_end else block.text)

    def run_command(self, command: str) -> str:
        """What a command prints; a change of the directory stays."""
        script = f"set -e\n{command}\npwd >{self.path('where')}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.directory, env=self.environment, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, f"{command}:\n{done.stdout}")
        self.directory = pathlib.Path(self.path("where")).read_text().strip()
        return done.stdout


if __name__ == "__main__":
    unittest.main()
