"""What cannot be right in a declaration, as pairs of the option and what is wrong with it."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence

from caseexec.placeholders import OF_CLASS, PLACEHOLDERS, names, nearest, pattern_problem
from caseexec.probes import Probe

Problems = Iterator[tuple[str, str]]

NEEDED = {
    "banner": "give a regular expression that the output matches when the service is ready",
    "socket": "give the path of the Unix socket, such as {tmp}/service.sock",
    "pid_file": "give the path of the pid file, such as {tmp}/service.pid",
    "check": "give the command that succeeds when the service is ready, such as pg_isready -p {port}",
}

CHOICES = {
    "listener": ("ours", "any"),
    "scope": ("test", "class", "module", "session"),
    "if_missing": ("error", "skip"),
    "restart": ("never", "on_crash", "test"),
}


def of_command(option: str, command: object, shell: bool) -> Problems:
    """A command is a string that can be split, or a list of strings."""
    if isinstance(command, str):
        try:
            if not command.strip() or not (shell or shlex.split(command)):
                yield option, "it is empty: name the program to run and its arguments"
        except ValueError as error:
            yield option, f"{command!r} cannot be split into arguments: {error}"
    elif isinstance(command, Sequence) and command and not isinstance(command, (bytes, bytearray)):
        if shell:
            yield option, f"{command!r} is a list, but a shell runs a string: write it as one, or leave shell out"
        elif not all(isinstance(item, (str, os.PathLike, int)) for item in command):
            yield option, f"{command!r} must hold strings only"
    else:
        yield option, f"{command!r} is no command: name the program to run and its arguments, as a string or a list"


def of_placeholders(option: str, template: object) -> Problems:
    """Every name in braces is a placeholder."""
    for name in names(template):
        if name not in (*PLACEHOLDERS, *OF_CLASS) and "." not in name:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            hint = nearest(f"{{{name}}}", [f"{{{known}}}" for known in (*PLACEHOLDERS, *OF_CLASS)])
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


def of_port_pattern(pattern: object, port: object, *, used: bool) -> Problems:
    """A service that chooses its port is not told one."""
    wrong = list(of_pattern("port_pattern", pattern))
    yield from wrong
    if not wrong and not re.compile(pattern).groups:  # type: ignore[call-overload]
        yield (
            "port_pattern",
            f"{pattern!r} must be a regular expression whose first group is the port, as in 'on (\\d+)'",
        )
    if port != 0:
        yield "port", f"it is {port!r}, but the service chooses its own (port_pattern): leave one of them out"
    if used:
        unknown = "{port}, {address} and {url} are not known before it has started"
        yield "port_pattern", f"the service chooses its own port, so {unknown}: write what means 'any' to it, often 0"


def of_seconds(option: str, seconds: object) -> Problems:
    """A timeout is a number above 0, or None."""
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (number and seconds > 0):  # type: ignore[operator]
        yield option, f"{seconds!r} is no number of seconds above 0 (None: no limit)"


def of_path(option: str, path: object) -> Problems:
    """A path is a string, or a pathlib.Path; or there is none."""
    if path is not None and not isinstance(path, (os.PathLike, str)):
        yield option, f"{path!r} is no path: write a string, or a pathlib.Path"


def of_pattern(option: str, pattern: object) -> Problems:
    """A regular expression for text."""
    if isinstance(pattern, str):
        if problem := pattern_problem(pattern):
            yield option, problem
    elif not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
        yield option, f"{pattern!r} is no regular expression for text: write a string"


def of_signal(option: str, number: object) -> Problems:
    """A signal is one of :mod:`signal`'s."""
    if not isinstance(number, int) or number not in signal.valid_signals():
        yield option, f"{number!r} is no signal: write signal.SIGTERM, signal.SIGINT or another of the signal module"


def of_strings(option: str, given: object) -> Problems:
    """An environment or headers: a mapping of strings to strings. Only the wrong item is shown, others are private."""
    yield from _of_mapping(option, given)
    for name, value in _items(given):
        if not isinstance(name, str) or not isinstance(value, str):
            yield option, f"[{name!r}] is no string but {value!r}: write {str(value)!r}"


def _of_mapping(option: str, given: object) -> Problems:
    if given is not None and not isinstance(given, Mapping):
        yield option, f"a {type(given).__name__} is no mapping of names to values: write {{'NAME': 'value'}}"


def _items(given: object) -> Iterable[tuple[object, object]]:
    return given.items() if isinstance(given, Mapping) else ()


def of_settings(option: str, given: object) -> Problems:
    """Settings of a server: a mapping of names to strings, numbers or truth values, each in one line."""
    yield from _of_mapping(option, given)
    for name, value in _items(given):
        if not isinstance(name, str) or not name.replace("-", "_").replace(".", "_").isidentifier():
            yield option, f"{name!r} is no name of a setting"
        elif not isinstance(value, (str, int, float)) or set(str(value)) & set("\0\r\n"):
            yield option, f"[{name!r}] is {value!r}: write a string in one line, a number, or True or False"


def of_password(option: str, password: object) -> Problems:
    """A password is a text in one line, or there is none. It is not shown."""
    if password is not None and not isinstance(password, str):
        yield option, f"a {type(password).__name__} is no password: write a string"
    elif password is not None and (not password or set(password) & set("\0\r\n")):
        yield option, "it is empty, or has more than one line: give another one, or leave it out"


def of_choices(service: object) -> Problems:
    """One of some words."""
    for option, choices in CHOICES.items():
        chosen = getattr(service, option)
        if chosen not in choices:
            known = " or ".join(f'"{choice}"' for choice in choices)
            yield option, f"it is {chosen!r}, but can only be {known}{nearest(str(chosen), choices)}"


def of_sharing(after: object, reset: object) -> Problems:
    """What a service waits for, and what is done between tests."""
    if isinstance(after, str) or not isinstance(after, Sequence):
        example = f"({after!r},)" if isinstance(after, str) else "(redis,)"
        yield "after", f"{after!r} is no sequence of services, or of their names: write {example}"
    elif wrong := [one for one in after if not isinstance(one, str) and not hasattr(one, "keeps_running")]:
        yield "after", f"{wrong[0]!r} is neither a service nor the name of one"
    if reset is True:
        yield "reset", "it is True, but only a ready-made service knows how to empty itself: give a function"
    elif reset not in (None, False):
        yield from of_function("reset", reset)


def of_function(option: str, given: object) -> Problems:
    """A function that does its work when it is called."""
    if not callable(given):
        yield option, f"{given!r} is no function"
    elif inspect.iscoroutinefunction(given):
        problem = "is asynchronous, and nobody would wait for it: make it an ordinary function"
        yield option, f"{getattr(given, '__name__', given)}() {problem} (asyncio.run() can be in there)"


def of_others(expected_returncode: object, daemonizes: object, probe: object) -> Problems:
    """What is left."""
    if expected_returncode is not None and type(expected_returncode) is not int:
        yield "expected_returncode", f"{expected_returncode!r} is no number"
    if not isinstance(daemonizes, bool):
        yield "daemonizes", f"{daemonizes!r} is neither True nor False"
    if probe is not None and not isinstance(probe, Probe):
        if callable(probe):
            yield from of_function("probe", probe)
        else:
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
