"""The reaper: a small process, one a run, that ends what a run leaves behind when it is killed.

It waits at the end of a pipe whose other end only the run holds. What the run tells it, a line each, it keeps unread;
when the pipe ends, or the run does (a forked child may still hold the pipe), or the process whose worker the run is, it
loads :mod:`caseexec.remains` and ends what it still knows of.

It is run by its path, and until then imports next to nothing, so that it starts fast and stays small.
"""

from __future__ import annotations

import os
import select
import signal
import sys

# Looked at this often where the system does not wake us at the end of a process (seconds).
_LOOK = 0.5
# How often it is tried to remove a cgroup, and the seconds in between.
_TRIES, _PAUSE = 50, 0.01
# pidfd_send_signal(2), since Linux 6.9: to the whole group that the process leads.
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2


def main() -> None:
    """Wait for the end of the run that the arguments name, then end what it has left.

    The arguments are its id, its process id, that of the process without which it has no purpose (0: none), the
    directory of its cgroups, what else it says of itself, in JSON, and where the libraries are that may be needed.
    """
    # A handler, as "ignored" would be inherited by the stop commands. We end when the run does.
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # The run has blocked them all for the time until here.
    os.chdir("/")
    run_id, pid, keeper, cgroups, about, *libraries = sys.argv[1:]
    entries = _follow(int(pid), int(keeper))
    if entries:
        sys.path += [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *libraries]
        try:
            from caseexec import remains
        except ImportError:  # It went with the run, as a checkout or a virtual environment that was thrown away.
            _end_leaders(entries)
        else:
            remains.end_of_run(run_id, about, entries)
    if cgroups:
        _remove_cgroups(cgroups, f"caseexec-{run_id}.")


def _follow(run: int, keeper: int) -> dict[bytes, bytes]:
    """What the run has told, and not taken back, when it ends or has lost its purpose."""
    entries: dict[bytes, bytes] = {}
    waiting, watched = select.poll(), [_watch(pid) for pid in (run, keeper) if pid]
    for descriptor in (0, *watched):
        if descriptor is not None:
            waiting.register(descriptor, select.POLLIN)
    rest = b""
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll(None if all(watched) else _LOOK * 1000)}
        over = bool(ready - {0}) or os.getppid() != run or not _is_there(keeper)
        data = _read(over)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            key, _, entry = line.partition(b"\t")
            if entry:
                entries[key] = entry
            else:
                entries.pop(key, None)
        if over or (ready and not data):
            return entries


def _end_leaders(entries: dict[bytes, bytes]) -> None:
    """The least that can be done: kill the groups whose leaders are there, the very processes that the run started."""
    import json

    for entry in entries.values():
        try:
            pid, born = json.loads(entry).get("leader") or (0, 0)
            leader = _watch(pid) if pid else None
            with open(f"/proc/{pid}/stat") as file:
                if leader is not None and int(file.read().rpartition(")")[2].split()[19]) == born:
                    _kill(leader)
        except (OSError, ValueError):  # It has ended, or what was told of it is torn.
            continue


def _kill(leader: int) -> None:
    """Kill the group of a leader; the leader alone where the kernel does not know how."""
    try:
        signal.pidfd_send_signal(leader, signal.SIGKILL, None, _PIDFD_SIGNAL_PROCESS_GROUP)
    except OSError:
        signal.pidfd_send_signal(leader, signal.SIGKILL)


def _remove_cgroups(directory: str, prefix: str) -> None:
    """Remove those of the run. One that has just become empty may need a moment, one with a survivor stays."""
    for _ in range(_TRIES):
        left = [os.path.join(directory, name) for name in os.listdir(directory) if name.startswith(prefix)]
        for path in left:
            try:
                os.rmdir(path)
            except OSError:
                continue
        if not left:
            break
        select.select([], [], [], _PAUSE)


def _watch(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends, where there is such a thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _is_there(keeper: int) -> bool:
    try:
        os.kill(keeper, 0)  # To 0, for "none", that is our own group.
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _read(everything: bool) -> bytes:
    """What is in the pipe; empty at its end, or when nothing is left."""
    found = b""
    while select.select([0], [], [], 0)[0]:
        piece = os.read(0, 1 << 16)
        found += piece
        if not piece or not everything:
            break
    return found


if __name__ == "__main__":
    main()
