"""Placeholders: names in braces that a declaration leaves open until the service is started."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["OF_CLASS", "PLACEHOLDERS", "fill", "fill_command", "names", "nearest", "pattern_problem"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

PLACEHOLDERS = ("host", "port", "address", "url", "tmp", "python")
"""What a service knows of itself before it starts."""

OF_CLASS = ("live_server_url",)
"""What its test class knows, as an attribute, when all of its own set-up is done."""

# A name in braces; not a shell's ${name}, and not JSON. Doubled braces stand for themselves.
_PLACEHOLDER = re.compile(r"\{\{([^\W\d]\w*)\}\}|(?<!\$)\{([^\W\d][\w.]*)\}")


def names(template: object) -> Iterator[str]:
    """The placeholders in a template of any shape."""
    if isinstance(template, os.PathLike):
        template = os.fspath(template)
    if isinstance(template, str):
        yield from (match[2] for match in _PLACEHOLDER.finditer(template) if match[2])
    elif isinstance(template, Mapping):
        yield from names(list(template.values()))
    elif isinstance(template, Sequence):
        for item in template:
            yield from names(item)


def fill(text: str, values: Mapping[str, str], quote: Callable[[str], str] = str) -> str:
    """Put the values in, each through *quote*."""
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else quote(values[match[2]]), text)


def pattern_problem(pattern: str) -> str:
    """What is wrong with a regular expression that may hold placeholders; empty: nothing."""
    try:
        re.compile(_PLACEHOLDER.sub("x", pattern))
    except re.error as error:
        return f"{pattern!r} is no regular expression: {error}"
    return ""


def fill_command(
    command: str | Sequence[str | os.PathLike[str]], values: Mapping[str, str], shell: bool
) -> str | Sequence[str]:
    """Fill a command item by item, after splitting, so that no value is split; for a shell, quote the values."""
    if isinstance(command, str) and shell:
        # Without the indentation of the class, so that a here-document can end where it must.
        return fill(textwrap.dedent(command), values, shlex.quote)
    return [fill(str(item), values) for item in (shlex.split(command) if isinstance(command, str) else command)]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint at the name that was probably meant, ready to append to a message; empty when none is near.

    :param cutoff: how near, from 0 (anything) to 1 (the same).
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {found[0]}?" if found else ""
