"""The reaper: a small process, one a run, that ends what a run leaves behind when it is killed.

It waits at the end of a pipe whose other end only the run holds. What the run tells it, a line each, it keeps unread;
when the pipe ends, or the run does (a forked child may still hold the pipe), or the process whose worker the run is, it
loads :mod:`caseexec.remains` and ends what it still knows of.

Until then it keeps the logs that it was told of from filling the disk.

It is run by its path, and until then imports next to nothing, so that it starts fast and stays small.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys
import time

# Looked at this often where the system does not wake us at the end of a process (seconds).
_LOOK = 0.5
# Between two looks at the logs, and while one of them is written so fast that it was too large (seconds): what is
# written in that time comes on top of the limit.
_LOG_LOOK, _LOG_WORK = 0.25, 0.02
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
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    entries = _follow(int(pid), int(keeper))
    if entries:
        sys.path += libraries
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
    logs = _Logs()
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
            key, _, told = line.partition(b"\t")
            entry, _, of_logs = told.partition(b"\t")
            logs.tell(key, of_logs)
            if entry:
                entries[key] = entry
            else:
                entries.pop(key, None)
        if over or (ready and not data):
            return entries


class _Logs:
    """The logs that the run has told of. They are trimmed in a thread: the disk may keep it waiting, but not us."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[bytes]] = {}
        self._told = _thread.allocate_lock()
        self._begun = False

    def tell(self, key: bytes, line: bytes) -> None:
        """Know of the logs of a key: their limit, then their paths, in hexadecimal digits; an empty line: of none."""
        if not line.strip():
            self._known.pop(key, None)
            return
        self._known[key] = line.split()
        try:
            if not self._begun:
                _thread.start_new_thread(self._work, ())
                self._begun = True
            elif self._told.locked():
                self._told.release()
        except RuntimeError:  # No more threads; perhaps when it is told again.
            return

    def _work(self) -> None:
        while self._told.acquire():  # Until there are some.
            pause = _LOG_LOOK
            while self._known:
                pause = _LOG_WORK if self._look() else min(_LOG_LOOK, 2 * pause)
                time.sleep(pause)

    def _look(self) -> bool:
        """Trim those that are above their limit; whether there were any."""
        above = [_trim(path, limit) for limit, *paths in [*self._known.values()] for path in paths]
        return any(above)


def _trim(path: bytes, limit: bytes) -> bool:
    """Trim a log that is above its limit; whether it was."""
    try:
        log = bytes.fromhex(path.decode())
        if os.lstat(log).st_blocks * 512 <= int(limit):
            return False
        from caseexec import holes

        return holes.trim(log, int(limit))
    except Exception:  # It is not there yet, or no more, or no log at all: nobody else is to suffer from it.
        return False


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
