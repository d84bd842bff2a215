"""Whether a program is installed."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence

__all__ = ["find_program", "search_path"]


def search_path(environment: Mapping[str, str] | None) -> str:
    """Where programs are searched for, with these variables on top of the present ones."""
    return (environment or {}).get("PATH") or os.environ.get("PATH", os.defpath)


def find_program(
    command: str | Sequence[str | os.PathLike[str]],
    shell: bool,
    cwd: str | os.PathLike[str] | None,
    environment: Mapping[str, str] | None,
) -> tuple[str, str | None]:
    """A command's program and its path. That is ``None``: there is none of that name; or empty: only a shell, or the
    start itself, can tell.
    """
    if shell and isinstance(command, str):
        return command, ""
    program = os.fspath((shlex.split(command) if isinstance(command, str) else command)[0])
    directory = os.fspath(cwd or "")
    if "{" in program or (os.sep in program and "{" in directory):
        return program, ""
    beside = os.path.join(directory, program) if os.sep in program else program
    return program, shutil.which(beside, os.F_OK, search_path(environment))
