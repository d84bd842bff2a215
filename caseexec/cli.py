"""``python -m caseexec``: what runs of this user have left, and the end of it."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from caseexec import processes, record, remains
from caseexec.deadline import Deadline
from caseexec.errors import RecordWarning, printable, shorten
from caseexec.record import RunRecord, ServiceRecord

__all__ = ["main"]

_COLUMNS = ("RUN", "STATE", "WORKER", "TEST CLASS", "SERVICE", "PID", "ADDRESS", "AGE", "MEMORY", "LOG")

# A stop command may take five seconds, and what it did not end some more.
_REAPERS_TIME = 8.0


@dataclass(frozen=True)
class Found:
    """A service of a run, with its processes that live."""

    service: ServiceRecord | None
    pids: tuple[int, ...]

    @property
    def name(self) -> str:
        """The service in words."""
        if self.service is None:
            return "a process with the run's mark"
        of_class = f" of {self.service.test_class}" if self.service.test_class else ""
        return printable(f"{self.service.service}{of_class}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; ends with its exit status."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("always")  # Whatever PYTHONWARNINGS says of those of a test run.
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # A command line may have bytes that no encoding knows.
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(options.do(options))
    except BrokenPipeError:  # "ps | head"; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:
        print(f"caseexec: {error}", file=sys.stderr)
        sys.exit(2)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"caseexec: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caseexec", description="List and end the services that test runs of caseexec have started."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    ps = commands.add_parser(
        "ps", help="list the live services", description="List the live services of all runs of this user."
    )
    ps.add_argument("--json", action="store_true", help="as JSON, with all that the records hold")
    ps.set_defaults(do=_ps)
    reap = commands.add_parser(
        "reap",
        help="end what dead runs have left",
        description="End the services of dead runs, and remove their temporary directories. A process is ended only if "
        "its process id, its start time and its mark are those of the record, or if it descends from such a one. "
        "The exit status is 0 when nothing is left, 1 when something is, 2 when a named run has no record, or when "
        "none is named and a record cannot be read.",
    )
    reap.add_argument("run", nargs="*", metavar="RUN", help="these runs only, dead or alive, by the id that ps shows")
    reap.add_argument("--all", action="store_true", help="the services of live runs, too")
    reap.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    reap.set_defaults(do=_reap)
    return parser


# -- ps ----------------------------------------------------------------------------------------------------------------


def _ps(options: argparse.Namespace) -> int:
    recorded = record.read_all(record.elsewhere())
    runs = [(run, list(_living(run))) for run in recorded]
    if options.json:
        print(json.dumps([_as_data(run, found) for run, found in runs], indent=2))
        return 0
    rows = [row for run, found in runs for row in _rows(run, found)]
    if rows:
        _print_table(_without_workers([_COLUMNS, *rows]))
        print()
    else:
        print(f"no services live (the records are in {record.directory()})")
    for run, found in runs:
        if found:
            command = printable(shorten(run.command, 100))
            print(f"run {run.id}: {_state(run)}, pid {run.pid}: {command}, in {printable(run.cwd)}")
            print(f"  reaper: {_reaper_state(run)}; descendants are found by: {', '.join(run.means)}")
            if not run.alive:
                print(f"  end what it left: {_reap_command(run)}")
        elif not run.alive:
            print(f"run {run.id}: DEAD, has left temporary files; remove them: {_reap_command(run)}")
    _tell_of_the_unrecorded(recorded)
    return 0


def _reap_command(run: RunRecord) -> str:
    return f"{shlex.quote(sys.executable or 'python')} -m caseexec reap {run.id}"


def _tell_of_the_unrecorded(recorded: Sequence[RunRecord]) -> None:
    """Of processes that carry the mark of a run which has no record, or that of another user."""
    known, table = {run.id for run in recorded}, processes.table()
    for pid in table.everybody():
        marks = processes.marks_of(processes.mark_of(table, pid))
        runs = [mark.partition(".")[0] for mark in marks if mark != processes.REAPING]
        if runs and known.isdisjoint(runs):
            print(f"left alone: {printable(str(processes.describe(pid)))} of run {runs[0]}, which has no record")


def _living(run: RunRecord) -> Iterator[Found]:
    """The services of a run of which something lives."""
    living = remains.of_record(run).living()
    for service in (*run.services, None):
        mark = service.mark if service else ""
        pids = tuple(status.identity.pid for status, left in living if left.mark == mark)
        if pids:
            yield Found(service, pids)


def _without_workers(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """A table without the column that is empty unless tests are run in parallel."""
    column = _COLUMNS.index("WORKER")
    if any(row[column] for row in rows[1:]):
        return rows
    return [[*row[:column], *row[column + 1 :]] for row in rows]


def _rows(run: RunRecord, found: Sequence[Found]) -> Iterator[Sequence[str]]:
    for one in found:
        memory, service = f"{_memory(one.pids) / 2**20:.1f} MiB", one.service
        others = f" +{len(one.pids) - 1}" if len(one.pids) > 1 else ""
        if service is None:
            yield run.id, _state(run), run.worker, "", "?", f"{one.pids[0]}{others}", "", "", memory, ""
        else:
            # The leader, unless it has ended, as that of a service which went to the background.
            pid = service.pid if service.pid in one.pids else one.pids[0]
            yield (run.id, _state(run), run.worker, service.test_class, service.service, f"{pid}{others}",
                   service.address, _age(time.time() - service.since), memory, service.log)  # fmt: skip


def _as_data(run: RunRecord, found: Sequence[Found]) -> dict[str, Any]:
    services = [
        {**(asdict(one.service) if one.service else {}), "pids": one.pids, "memory": _memory(one.pids)} for one in found
    ]
    return {**asdict(run), "alive": run.alive, "services": services}


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(printable(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(printable(text).ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _state(run: RunRecord) -> str:
    return "alive" if run.alive else "DEAD"


def _reaper_state(run: RunRecord) -> str:
    if run.reaper is None:
        return "none"
    status = processes.table().status(run.reaper)
    if _is_reaper_at_work(run):
        stopped = processes.is_stopped(run.reaper)
        return f"pid {run.reaper}, {f'stopped: kill -CONT {run.reaper}' if stopped else 'at work'}"
    return f"pid {run.reaper}" + ("" if status and not status.zombie else ", which has ended")


def _is_reaper_at_work(run: RunRecord) -> bool:
    """Whether the run is dead, and its reaper just ends what it has left."""
    return not run.alive and run.reaper is not None and run.id in processes.table().command(run.reaper)


def _memory(pids: Sequence[int]) -> int:
    """The resident memory of some processes, in bytes."""
    import psutil

    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- reap --------------------------------------------------------------------------------------------------------------


def _reap(options: argparse.Namespace) -> int:
    further = record.elsewhere()
    unreadable: list[RecordWarning] = []
    runs = record.read_all(further, unreadable.append)
    for warning in unreadable:
        _show_warning(warning)
    unknown = sorted(set(options.run) - {run.id for run in runs})
    for name in unknown:
        print(f"run {name}: there is no readable record of it in {' or '.join([record.directory(), *further])}")
    chosen = [run for run in runs if (run.id in options.run if options.run else options.all or not run.alive)]
    left, todo = False, chosen
    while todo:
        within = [run for run in runs if run.alive and _is_within(run, todo)]
        left |= False in [_reap_run(run, options.dry_run) for run in todo]
        todo = [run for run in within if not run.alive and record.exists(run)]
    if not options.dry_run:
        for where in {record.directory(), record.lease_directory(), *further}:
            record.prune_leases(where)
    if not (chosen or unknown or unreadable):
        print(f"nothing is left by dead runs (the records are in {record.directory()})")
    if unknown or not options.run:
        _tell_of_the_unrecorded(runs)
    return 1 if left else 2 if unknown or (unreadable and not options.run) else 0


def _is_within(run: RunRecord, outer: Sequence[RunRecord]) -> bool:
    """Whether a run is within a service of one of others, and so ends with that."""
    marks = processes.marks_of(processes.mark_of(processes.table(), run.pid))
    return not {mark.rpartition(".")[0] for mark in marks}.isdisjoint(one.id for one in outer)


def _reap_run(run: RunRecord, dry: bool) -> bool:
    """End what is left of a run; whether nothing is."""
    alive, who = run.alive, f"run {run.id} ({_state(run)}, pid {run.pid})"
    reaped = _await_reaper(run, who, dry)
    if not reaped:
        _tell_stop_commands(run, who)
    found = list(_living(run))
    doubtful = [service for service in run.services if _is_doubtful(service, found)]
    _tell_services(who, "would end" if dry else "ending", found, doubtful)
    # By name, as a record is not to be trusted with what else this user has.
    named = [path for path in run.paths if os.path.basename(path).startswith(f"caseexec-{run.id}.")]
    paths = [] if alive else named
    if dry:
        for path in paths:
            print(f"{who}: would remove {path}")
        return not (found or doubtful or paths)
    survivors = remains.of_record(run).end()
    for pid in survivors:
        print(f"{who}: could not be ended: {processes.describe(pid)}")
    if survivors or doubtful:
        return False
    if alive:
        print(f"{who}: its services are gone, its directories stay as long as it lives")
        return True
    for path in remains.remove_paths(paths):
        print(f"{who}: removed {path}")
    record.remove(run.id, run.where)
    stuck = f" but its reaper, end it: kill -KILL {run.reaper}" if reaped is False else ""
    print(f"{who}: nothing is left{stuck}")
    return not stuck


def _tell_stop_commands(run: RunRecord, who: str) -> None:
    for service in run.services:
        if service.stop_command:
            print(f"{who}: run it yourself, as its environment is not known: the stop command of "
                  f"{printable(service.service)}, {printable(service.stop_command)}")  # fmt: skip


def _tell_services(who: str, doing: str, found: Sequence[Found], doubtful: Sequence[ServiceRecord]) -> None:
    for one in found:
        print(f"{who}: {doing} {one.name}, pid {', '.join(map(str, one.pids))}")
    for service in doubtful:
        print(f"{who}: left alone: {processes.describe(service.pid)} was {service.service}, but carries no mark of it")


def _await_reaper(run: RunRecord, who: str, dry: bool) -> bool | None:
    """Give the reaper of a dead run the time to do its work; ``False``: it is stuck, ``None``: there is none."""
    if not _is_reaper_at_work(run):
        return None
    print(f"{who}: its reaper is at work, pid {run.reaper}", flush=True)
    for _ in Deadline(_REAPERS_TIME).turns():
        if dry or not _is_reaper_at_work(run):
            return True
        if processes.is_stopped(run.reaper or 0):
            break
    print(f"{who}: its reaper does not go on, so that its work is done here")
    return False


def _is_doubtful(service: ServiceRecord, found: Sequence[Found]) -> bool:
    """Whether a leader is still the same process, but not proven to be ours."""
    status = processes.table().status(service.pid)
    if status is None or status.zombie or status.identity != service.leader:
        return False
    return not any(service.pid in one.pids for one in found)
