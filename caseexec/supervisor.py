"""The supervisor of a service that goes to the background by itself: a small program that keeps all its descendants.

It runs the command as its child, and is the *child subreaper* (prctl(2), Linux 3.4) of all that descends from it: who
loses its parents gets the supervisor as parent, so that nobody leaves the tree, whatever it does to its session or
environment. It ends with the command's exit status, when the last of them has ended; a command that fails by itself
takes with it what it started. The signals that it is sent, it passes on to its children that have left its process
group.

It is run by its path, and imports nothing of the package before it is needed, so that it starts fast.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

__all__ = ["available", "command"]

_PR_SET_CHILD_SUBREAPER = 36
# What is not passed on: it can't be caught, or it is about the supervisor itself.
_OWN_SIGNALS = ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE",
                "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP")  # fmt: skip


def available() -> bool:
    """Whether there is such a thing here: on Linux."""
    return sys.platform == "linux"


def command(parts: Sequence[str], executable: str | None = None, stop_signal: int = signal.SIGTERM) -> list[str]:
    """The command that runs *parts* under a supervisor.

    :param executable: the program to run instead of ``parts[0]``, which is then only its name.
    :param stop_signal: what asks it to end, beside SIGTERM, SIGINT and SIGQUIT.
    """
    # It is empty in a program that embeds Python.
    python = [sys.executable or "python3", "-I", "-S", os.path.abspath(__file__)]
    return [*python, str(int(stop_signal)), executable or parts[0], *map(os.fspath, parts)]


def main() -> None:
    """Run the command of the arguments: the stop signal, the program, and its arguments from the name on."""
    import ctypes

    # A C locale makes Python set this for itself and for its children.
    if os.environ.get("LC_CTYPE") == "C.UTF-8" and b"\0LC_CTYPE=" not in b"\0" + _first_environment():
        del os.environ["LC_CTYPE"]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # First deaf: so none is passed on before there is somebody, or lost on a child that is not the command yet.
    everything = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        _take_back_what_python_does()
        signal.pthread_sigmask(signal.SIG_SETMASK, everything)
        _execute(sys.argv[2], sys.argv[3:])
    _pass_signals_on()
    for number in signal.sigpending() - {signal.SIGCHLD}:
        os.kill(child, number)  # What came before the fork only we have; one that it has, too, it gets but once.
    _let_go_of_files()  # With them goes what the child waits for.
    signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    _end_as(_wait_for_all(child))


def _first_environment() -> bytes:
    with open("/proc/self/environ", "rb") as file:
        return file.read()


def _take_back_what_python_does() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # It ignores them, and exec would hand that down.
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _pass_signals_on() -> None:
    own = {getattr(signal, name, None) for name in _OWN_SIGNALS}
    for number in signal.valid_signals() - own:
        try:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _pass_on)
        except (OSError, ValueError):  # The C library keeps some real-time signals to itself.
            continue


# The signal that has asked it to end, 0: none; and the children that it was passed on to.
_asked_to_end = 0
_told: set[int] = set()


def _pass_on(number: int, frame: object) -> None:
    global _asked_to_end
    if number in (int(sys.argv[1]), signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        _asked_to_end = number
    _tell_children(number, ())


def _tell_children(number: int, but: Container[int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # One at a time.
    group = os.getpgrp()
    for child in _children():
        try:
            if child not in but and os.getpgid(child) != group:  # The others have it from whoever signalled the group.
                _told.add(child)
                os.kill(child, number)
        except (ProcessLookupError, PermissionError):  # Or another user's, by a set-user-id program.
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _children() -> Iterator[int]:
    """Our children; they stay ours until we have waited for them, so none is mistaken for another."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if root not in sys.path:
        sys.path.append(root)
    from caseexec import processes

    yield from processes.table().children(os.getpid())


def _execute(program: str, arguments: list[str]) -> None:
    try:
        os.execvp(program, arguments)
    except OSError as error:
        os.write(2, f"{program}: {error.strerror}\n".encode())
    os._exit(127)


def _let_go_of_files() -> None:
    """Who waits for the end of a stream waits for the command, not for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _wait_for_all(child: int) -> int:
    """Wait until nobody is left; how the command ended, as in :func:`os.waitstatus_to_exitcode`."""
    code = 0
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:
            return code
        _told.discard(ended)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
        if _asked_to_end:
            _tell_children(_asked_to_end, _told)  # Those that have come to us only now, as their parents have ended.
        elif code != 0:
            _kill_children()  # Their own children come to us next.


def _kill_children() -> None:
    # Deaf meanwhile: a signal would want to load what is just being loaded here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for child in _children():
        try:
            os.kill(child, signal.SIGKILL)
        except PermissionError:
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_as(code: int) -> None:
    """End as the command did."""
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # Its core was dumped already.
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
