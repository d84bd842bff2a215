"""What cannot be right in a declaration, as pairs of the option and what is wrong with it."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence

from caseexec.placeholders import PLACEHOLDERS, names, nearest, pattern_problem
from caseexec.probes import Probe

Problems = Iterator[tuple[str, str]]

NEEDED = {
    "banner": "give a regular expression that the output matches when the service is ready",
    "socket": "give the path of the Unix socket, such as {tmp}/service.sock",
    "pid_file": "give the path of the pid file, such as {tmp}/service.pid",
    "check": "give the command that succeeds when the service is ready, such as pg_isready -p {port}",
}


def of_command(option: str, command: object, shell: bool) -> Problems:
    """A command is a string that can be split, or a list of strings."""
    if isinstance(command, str):
        try:
            if not command.strip() or not (shell or shlex.split(command)):
                yield option, "it is empty: name the program to run and its arguments"
        except ValueError as error:
            yield option, f"{command!r} cannot be split into arguments: {error}"
    elif isinstance(command, Sequence) and command:
        if shell:
            yield option, f"{command!r} is a list, but a shell runs a string: write it as one, or leave shell out"
        elif not all(isinstance(item, (str, os.PathLike, int)) for item in command):
            yield option, f"{command!r} must hold strings only"
    else:
        yield option, f"{command!r} is no command: name the program to run and its arguments, as a string or a list"


def of_placeholders(option: str, template: object) -> Problems:
    """Every name in braces is a placeholder."""
    for name in names(template):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            hint = nearest(f"{{{name}}}", [f"{{{known}}}" for known in PLACEHOLDERS])
            literally = f"for the braces themselves write {{{{{name}}}}}"
            yield option, f"there is no placeholder {{{name}}} (there are {known}){hint or '.'} Or {literally}"


def of_port(port: object, *, needed: bool, used: bool) -> Problems:
    """A port is a number, and a leased one reaches the command."""
    if port is None and (needed or used):
        unix = "what listens on a Unix socket only is another kind: UnixSocketServiceMixin, with service_socket"
        yield "port", f"it is None: give the port it listens on, or 0 to lease a free one; {unix}"
    elif port is not None and (type(port) is not int or not 0 <= port < 65536):
        yield "port", f"{port!r} is no port: it must be a number from 1 to 65535, or 0 to lease a free one"
    elif port == 0 and needed and not used:
        told = "write {port} into the command or the environment, or name the port it listens on"
        yield "port", f"it is 0, so a free port is leased, but nothing tells the command which one: {told}"


def of_seconds(option: str, seconds: object) -> Problems:
    """A timeout is a number above 0, or None."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (number and seconds > 0):  # type: ignore[operator]
        yield option, f"{seconds!r} is no number of seconds above 0 (None: no limit)"


def of_signal(option: str, number: object) -> Problems:
    """A signal is one of :mod:`signal`'s, or None."""
    if number is not None and (not isinstance(number, int) or number not in signal.valid_signals()):
        yield option, f"{number!r} is no signal: write signal.SIGTERM, signal.SIGINT or another of the signal module"


def of_strings(option: str, given: object) -> Problems:
    """An environment or headers: a mapping of strings to strings. Only the wrong item is shown, others are private."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        yield option, f"a {type(given).__name__} is no mapping of names to values: write {{'NAME': 'value'}}"
        return
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            yield option, f"[{name!r}] is no string but {value!r}: write {str(value)!r}"


def of_others(expected_returncode: object, daemonizes: object, listener: object, probe: object) -> Problems:
    """What is left."""
    if expected_returncode is not None and type(expected_returncode) is not int:
        yield "expected_returncode", f"{expected_returncode!r} is no number"
    if not isinstance(daemonizes, bool):
        yield "daemonizes", f"{daemonizes!r} is neither True nor False"
    if listener not in ("ours", "any"):
        yield "listener", f'{listener!r} is neither "ours" nor "any"{nearest(str(listener), ("ours", "any"))}'
    if probe is not None and not callable(probe) and not isinstance(probe, Probe):
        yield "probe", f"{probe!r} is neither a function nor a probe"


def of_request(scheme: object, path: object, method: object, status: str) -> Problems:
    """What an HTTP service is asked."""
    if scheme not in ("http", "https"):
        yield "scheme", f"{scheme!r} is neither http nor https"
    if not isinstance(path, str) or not path.startswith("/"):
        yield "path", f"{path!r} must begin with a slash"
    if not isinstance(method, str) or not method.isupper():
        yield "method", f"{method!r} is no HTTP method: write it in capitals, as GET or HEAD"
    if problem := pattern_problem(status):
        yield "status", problem
    elif not any(str(code) == status or re.match(status, str(code)) for code in range(100, 600)):
        yield "status", f"{status!r} matches no status code: write a number, or a regular expression such as 2.."
