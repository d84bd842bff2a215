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
# pidfd_send_signal(2), since Linux 6.9: to the whole group that the process leads.
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2


def main() -> None:
    """Wait for the end of the run that the arguments name, then end what it has left.

    The arguments are its id, its process id, that of the process without which it has no purpose (0: none), the
    directory of its cgroups, and what else it says of itself, in JSON.
    """
    # A handler, as "ignored" would be inherited by the stop commands. We end when the run does.
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), lambda number, frame: None)
    os.chdir("/")
    run_id, pid, keeper, cgroups, about = sys.argv[1:]
    entries = _follow(int(pid), int(keeper))
    if entries:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        try:
            from caseexec import remains
        except ImportError:  # It went with the run, as a checkout or a virtual environment that was thrown away.
            _end_leaders(entries)
        else:
            remains.end_of_run(run_id, about, entries)
    # Of a service that was stopped right before the end, it may not have been removed.
    for name in os.listdir(cgroups) if cgroups else ():
        if name.startswith(f"caseexec-{run_id}."):
            try:
                os.rmdir(os.path.join(cgroups, name))
            except OSError:  # Somebody in there could not be ended.
                continue


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
        pid, born = json.loads(entry).get("leader") or (0, 0)
        leader = _watch(pid) if pid else None
        try:
            with open(f"/proc/{pid}/stat") as file:
                if leader is not None and int(file.read().rpartition(")")[2].split()[19]) == born:
                    signal.pidfd_send_signal(leader, signal.SIGKILL, None, _PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError:
            continue


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
