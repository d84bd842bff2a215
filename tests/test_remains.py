import fcntl
import json
import os
import secrets
import signal
import subprocess
import threading
import unittest
from contextlib import suppress
from unittest import mock

from caseexec import cgroup, processes, record, remains, supervisor
from caseexec.cgroup import Cgroup
from caseexec.deadline import Deadline
from caseexec.plan import StopPlan
from caseexec.remains import Left, Remains
from tests.helpers.leaks import NothingRemains, alive, quickly, soon
from tests.helpers.programs import IGNORES_TERM, SLEEP, VANISHES, python

# A leader that has ended; no process has this number.
GONE = processes.Identity(2**22 + 1, 0)


class RemainsCase(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.table = processes.table()
        self.run_id = secrets.token_hex(8)
        self.moment = self.table.moment()

    def start(self, mark: str | None = None, command=SLEEP, environment=None, **popen) -> subprocess.Popen:
        environment = dict(os.environ) if environment is None else environment
        environment = {**environment, **({processes.MARK: mark} if mark else {})}
        process = subprocess.Popen(command, env=environment, start_new_session=True, **popen)
        self.addCleanup(process.wait)
        self.addCleanup(self.kill_group, process)
        if process.stdout:  # It says when it is ready.
            self.addCleanup(process.stdout.close)
            process.stdout.readline()
        self.assertTrue(soon(lambda: self.table.mark(process.pid) == mark))
        return process

    def kill_group(self, process: subprocess.Popen) -> None:
        """Kill a process that we have not waited for, and its group."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def service(self, command=SLEEP, number: int = 1, **popen) -> subprocess.Popen:
        return self.start(f"{self.run_id}.{number}", command, **popen)

    def deaf(self) -> subprocess.Popen:
        return self.service(IGNORES_TERM, stdout=subprocess.PIPE)

    def identity(self, process: subprocess.Popen) -> processes.Identity:
        return self.table.status(process.pid).identity

    def left(self, process: subprocess.Popen | None = None, number: int = 1, **facts) -> Left:
        gone = GONE if "plan" in facts else None
        leader = gone if process is None else self.identity(process)
        return Left(**{"mark": f"{self.run_id}.{number}", "leader": leader, **facts})

    def remains(self, *groups: Left, **options) -> Remains:
        return Remains(self.run_id, groups, **{"moment": self.moment, **options})

    def living(self, found: Remains) -> set[int]:
        return {status.identity.pid for status, _ in found.living()}

    def assert_lives(self, *others: subprocess.Popen) -> None:
        self.assertEqual([other.poll() for other in others], [None] * len(others), "a stranger was harmed")

    def read(self, name: str) -> str:
        with open(self.path(name)) as file:
            return file.read()


class FindTests(RemainsCase):
    def test_what_carries_a_mark_of_the_run_is_its(self) -> None:
        first, second = self.service(), self.service(number=22)
        self.assertEqual(self.living(self.remains()), {first.pid, second.pid})

    def test_run_ids_that_contain_one_another_are_told_apart(self) -> None:
        ours = self.service()
        run, others = self.run_id, []
        for mark in (f"{run}0.1", f"0{run}.1", f"{run[:-1]}.1", f"{run[1:]}.1", f"{run}.1.stop", run, f"x.{run}"):
            others.append(self.start(mark))
        found = self.remains(self.left(ours))
        self.assertEqual(self.living(found), {ours.pid})
        self.assertEqual(found.end(), [])
        self.assert_lives(*others)

    def test_by_default_everybody_is_looked_at(self) -> None:
        process = self.service()
        self.assertEqual(self.living(Remains(self.run_id, [])), {process.pid})

    def test_the_group_of_a_leader_that_is_there_is_its_even_without_a_mark(self) -> None:
        process = self.start(command=["sh", "-c", "sleep 300 & echo; wait"], stdout=subprocess.PIPE)
        self.assertEqual(len(self.living(self.remains(self.left(process)))), 2)

    def test_each_is_known_by_its_group(self) -> None:
        first, second = self.service(), self.service(number=2)
        groups = [self.left(first), self.left(second, 2)]
        found = {status.identity.pid: left for status, left in self.remains(*groups).living()}
        self.assertEqual(found, {first.pid: groups[0], second.pid: groups[1]})

    def test_one_without_a_mark_is_known_by_the_number_of_its_group(self) -> None:
        process = self.start()
        left = self.left(process)
        self.assertEqual([found for _, found in self.remains(left).living()], [left])


class StrangerTests(RemainsCase):
    def stranger(self, mark: str | None = None) -> subprocess.Popen:
        return self.start(mark, ["sh", "-c", "sleep 300 & echo; wait"], stdout=subprocess.PIPE)

    def assert_untouched(self, stranger: subprocess.Popen, found: Remains) -> None:
        members = [stranger.pid, *self.table.children(stranger.pid)]
        self.assertEqual(len(members), 2)
        self.assertEqual(self.living(found), set())
        with quickly(self, 5):
            self.assertEqual(found.end(grace=0), [])
        self.assertTrue(all(map(alive, members)))
        self.assert_lives(stranger)

    def test_one_that_has_the_number_of_a_leader_that_died_long_ago_lives(self) -> None:
        stranger = self.stranger()
        identity = self.identity(stranger)
        earlier = identity._replace(born=identity.born - 1)
        self.assert_untouched(stranger, self.remains(self.left(leader=earlier)))
        self.assert_untouched(stranger, self.remains(self.left(leader=earlier), strict=True))

    def test_one_with_another_mark_lives_when_only_a_file_names_it(self) -> None:
        for mark in (None, "another.1", f"{self.run_id}1.1"):
            stranger = self.stranger(mark)
            self.assert_untouched(stranger, self.remains(self.left(stranger), strict=True))

    def test_one_that_carries_the_mark_of_the_file_is_ended(self) -> None:
        process = self.stranger(f"{self.run_id}.1")
        found = self.remains(self.left(process), strict=True)
        self.assertEqual(len(self.living(found)), 2)
        self.assertEqual(found.end(), [])
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_one_that_takes_the_number_while_we_look_lives(self) -> None:
        ours = self.service()
        found = self.remains(self.left(ours))
        self.assertEqual(self.living(found), {ours.pid})
        stranger = self.stranger()
        # As if ours had ended by itself, and the stranger had its number.
        status, identity = self.table.status, self.identity(stranger)

        def renumbered(pid: int) -> processes.Status | None:
            told = status(stranger.pid if pid == ours.pid else pid)
            return told and told._replace(identity=processes.Identity(pid, told.identity.born + (pid == ours.pid)))

        with (
            mock.patch.object(self.table, "status", renumbered),
            mock.patch.object(self.table, "mark", lambda pid: None),
        ):
            found.end(grace=0)
        self.assert_lives(stranger, ours)
        self.assertEqual(self.identity(stranger), identity)


class EndTests(RemainsCase):
    def test_it_ends_by_the_stop_signal(self) -> None:
        process = self.service()
        self.assertEqual(self.remains(self.left(process)).end(), [])
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_each_group_has_a_stop_signal_of_its_own(self) -> None:
        process = self.service()
        self.remains(self.left(process, plan=StopPlan(stop_signal=signal.SIGUSR1))).end()
        self.assertEqual(process.wait(10), -signal.SIGUSR1)

    def test_one_whose_group_was_not_yet_told_is_ended_too(self) -> None:
        process = self.service()
        self.remains(self.left(leader=None)).end()
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_one_that_is_deaf_is_killed_after_its_grace(self) -> None:
        process = self.deaf()
        with mock.patch.object(self.table, "send", side_effect=self.table.send) as send:
            self.assertEqual(self.remains(self.left(process)).end(grace=0.05), [])
        numbers = [call.args[1] for call in send.call_args_list if call.args[1] != signal.SIGCONT]
        self.assertEqual(numbers, [signal.SIGTERM, signal.SIGKILL])
        self.assertEqual(process.wait(10), -signal.SIGKILL)

    def test_the_kill_signal_is_given_time_to_write_a_core(self) -> None:
        process = self.deaf()
        with mock.patch.object(self.table, "send", side_effect=self.table.send) as send:
            with mock.patch.object(remains, "_KILL_GRACE", 30):
                self.remains(self.left(process, plan=StopPlan(kill_signal=signal.SIGUSR2))).end(grace=0)
        numbers = [call.args[1] for call in send.call_args_list if call.args[1] != signal.SIGCONT]
        self.assertEqual(numbers, [signal.SIGUSR2])
        self.assertEqual(process.wait(10), -signal.SIGUSR2)

    def test_one_that_is_deaf_to_it_too_is_killed_a_little_later(self) -> None:
        process = self.deaf()
        with mock.patch.object(self.table, "send", side_effect=self.table.send) as send:
            self.remains(self.left(process, plan=StopPlan(kill_signal=signal.SIGTERM))).end(grace=0)
        numbers = [call.args[1] for call in send.call_args_list if call.args[1] != signal.SIGCONT]
        self.assertEqual(numbers, [signal.SIGTERM, signal.SIGKILL])
        self.assertEqual(process.wait(10), -signal.SIGKILL)

    def test_the_reaper_of_a_run_within_ends_by_itself(self) -> None:
        theirs, ours = os.pipe()
        process = self.service(pass_fds=(ours,))
        # It reads until the service ends.
        reaper = self.start(f"{self.run_id}.1/{processes.REAPING}", ["cat"], stdin=theirs)
        os.close(theirs)
        os.close(ours)
        self.assertEqual(self.remains(self.left(process)).end(grace=0), [])
        self.assertEqual((process.wait(10), reaper.wait(10)), (-signal.SIGKILL, 0))

    def test_one_that_does_not_is_killed_after_its_time(self) -> None:
        process, reaper = self.service(), self.start(f"{self.run_id}.1/{processes.REAPING}")
        with mock.patch.object(remains, "REAPERS_TIME", 0.05):
            self.assertEqual(self.remains(self.left(process)).end(grace=0), [])
        self.assertEqual((process.wait(10), reaper.wait(10)), (-signal.SIGKILL, -signal.SIGKILL))

    def test_one_that_is_paused_hears_the_stop_signal(self) -> None:
        process = self.service()
        process.send_signal(signal.SIGSTOP)
        self.remains(self.left(process)).end(grace=30)
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_who_left_the_group_is_left_to_its_parent(self) -> None:
        process = self.service(python("""
            import os, signal, sys, time
            def note(word):
                with open(sys.argv[1], 'a') as file:
                    file.write(word)
                os._exit(0)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
            child = os.fork()
            if child == 0:
                os.setsid()
                note({signal.SIGTERM: 'asked', signal.SIGUSR1: 'ended'}[signal.sigwait({signal.SIGTERM, signal.SIGUSR1})])
            while os.getsid(child) != child:
                time.sleep(0.001)
            print('ready')
            signal.sigwait({signal.SIGTERM})
            time.sleep(0.1)
            os.kill(child, signal.SIGUSR1)
            os.wait()
        """, self.path("notes")), stdout=subprocess.PIPE)  # fmt: skip
        self.remains(self.left(process)).end(grace=30)
        self.assertEqual((self.read("notes"), process.wait(10)), ("ended", 0))

    def test_who_is_started_to_clean_up_is_not_asked_to_end(self) -> None:
        program = """trap 'sh -c "sleep 0.2; echo clean >\\"$0\\""; exit' TERM; echo; while :; do sleep 0.01; done"""
        process = self.service(["sh", "-c", program, self.path("cleaned")], stdout=subprocess.PIPE)
        self.remains(self.left(process)).end(grace=30)
        self.assertEqual(self.read("cleaned"), "clean\n")

    def test_who_forks_faster_than_it_is_killed_is_ended(self) -> None:
        process = self.service(python("""
            import os, time
            for _ in range(3):
                if os.fork() == 0:
                    break
            else:
                print('forking')
                time.sleep(300)
            for generation in range(1500):
                if generation % 50 == 0 and os.fork() == 0:
                    os.setsid()
                    break
                if os.fork():
                    os._exit(0)
            time.sleep(300)
        """), stdout=subprocess.PIPE)  # fmt: skip
        found = self.remains(self.left(process))
        self.assertEqual(found.end(grace=0), [])
        self.assertEqual(self.living(Remains(self.run_id, [], moment=self.moment)), set())

    def test_who_cannot_be_ended_is_told(self) -> None:
        process = self.service()
        with (
            mock.patch.object(remains, "_PATIENCE", 0.1),
            mock.patch.object(self.table, "send", return_value=False),
            mock.patch.object(self.table, "send_group", return_value=False),
        ):
            self.assertEqual(self.remains(self.left(process)).end(grace=0), [process.pid])

    def test_a_second_time_there_is_nothing_to_do(self) -> None:
        process = self.service()
        found = self.remains(self.left(process))
        found.end()
        with quickly(self, 5):
            self.assertEqual(found.end(), [])


@unittest.skipUnless(supervisor.available(), "there are no supervisors here")
class SupervisorTests(RemainsCase):
    def test_it_is_the_last_to_be_killed(self) -> None:
        family = python("""
            import os, signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
                time.sleep(300)
            os.wait()
            print('ready')
            time.sleep(300)
        """)
        process = self.service(supervisor.command(family), stdout=subprocess.PIPE)
        left, killed = self.left(process, supervised=True), []
        found, send = self.remains(left), self.table.send

        def note(identity: processes.Identity, number: int) -> bool:
            if number == signal.SIGKILL:
                status = self.table.status(identity.pid)
                outside = [other for other in found.living() if other[0].group != process.pid]
                killed.append((status is not None and status.group == process.pid, bool(outside)))
            return send(identity, number)

        self.assertEqual(len(self.living(found)), 3)
        with mock.patch.object(self.table, "send", note):
            self.assertEqual(found.end(grace=0.05), [])
        self.assertEqual(killed[0], (False, True), "the daemon is killed first")
        self.assertNotIn((True, True), killed, "and as long as it lives, nobody of the supervisor's group")


@unittest.skipIf(cgroup.parent() is None, "no cgroup v2 can be made here")
class CgroupTests(RemainsCase):
    def test_a_daemon_without_any_trace_is_found_and_the_cgroup_removed(self) -> None:
        own = Cgroup(os.path.join(cgroup.parent(), f"caseexec-{self.run_id}.1"))
        self.assertTrue(own.create())
        self.addCleanup(lambda: own.kill() or soon(own.remove))
        with own.entered():
            process = self.start(None, python(VANISHES, self.path("pid"), os.path.basename(own.path)))
        self.assertTrue(soon(lambda: os.path.exists(self.path("pid"))))
        daemon = int(self.read("pid"))
        process.wait(10)
        self.assertEqual(self.living(self.remains()), set(), "without the cgroup there is no trace of it")
        left = self.left(cgroup=own)
        # Its shell may not have waited for its last command yet.
        self.assertTrue(soon(lambda: self.living(self.remains(left)) == {daemon}))
        self.assertEqual([found for _, found in self.remains(left).living()], [left])
        self.assertEqual(self.remains(left).end(), [])
        self.assertFalse(alive(daemon) or os.path.exists(own.path))


class StopCommandTests(RemainsCase):
    def plan(self, command, **plan) -> StopPlan:
        return StopPlan(command=command, environment=dict(os.environ), **plan)

    def test_it_is_run_before_the_stop_signal(self) -> None:
        program = """trap 'read line <"$0"; echo $line >"$1"; exit' TERM; echo; while :; do sleep 0.01; done"""
        process = self.service(["sh", "-c", program, self.path("stopped"), self.path("seen")], stdout=subprocess.PIPE)
        stop = self.plan(["sh", "-c", 'sleep 0.2; echo stopped >"$0"', self.path("stopped")])
        self.remains(self.left(process, plan=stop)).end(grace=30)
        self.assertEqual(self.read("seen"), "stopped\n")

    def test_all_are_run_side_by_side(self) -> None:
        waits = 'echo >"$0"; while [ ! -e "$1" ]; do sleep 0.01; done; echo done >"$0"'
        paths = [self.path("a"), self.path("b")]
        plans = [self.plan(["sh", "-c", waits, *order]) for order in (paths, paths[::-1])]
        groups = [self.left(number=number, plan=plan) for number, plan in enumerate(plans)]
        with mock.patch.object(remains, "_STOP_COMMAND", 30), quickly(self, 20):
            self.remains(*groups).end()
        self.assertEqual((self.read("a"), self.read("b")), ("done\n", "done\n"))

    def test_one_that_takes_too_long_is_killed_with_its_children_and_the_signal_follows(self) -> None:
        process = self.service()
        stop = self.plan('sleep 300 & echo $! $$ >"$PIDS.new"; mv "$PIDS.new" "$PIDS"; wait', shell=True)
        stop.environment["PIDS"] = self.path("pids")
        # Its time is over when it has begun.
        time = Deadline(30)
        time.watchers.append(lambda: os.path.exists(self.path("pids")) and time.expire())
        within = lambda seconds: time if seconds == remains._STOP_COMMAND else Deadline(seconds)  # noqa: E731
        with mock.patch.object(remains, "Deadline", within), quickly(self, 20):
            self.remains(self.left(process, plan=stop)).end(grace=30)
        self.assertFalse(any(map(alive, map(int, self.read("pids").split()))))
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_five_seconds_are_the_most(self) -> None:
        self.assertEqual(remains._STOP_COMMAND, 5)

    def test_it_is_not_ended_with_what_it_ends(self) -> None:
        process = self.service()
        stop = self.plan(
            ["sh", "-c", 'echo begun >"$0"; kill "$1"; sleep 0.2; echo ended >"$0"', self.path("f"), str(process.pid)]
        )
        self.remains(self.left(process, plan=stop)).end(grace=0)
        self.assertEqual(self.read("f"), "ended\n")

    def test_it_is_not_run_for_a_service_that_had_not_begun(self) -> None:
        self.remains(self.left(plan=self.plan(["touch", self.path("stopped")]), leader=None)).end()
        self.assertFalse(os.path.exists(self.path("stopped")))

    def test_it_carries_a_mark_of_its_own(self) -> None:
        self.remains(self.left(plan=self.plan(f'echo "${processes.MARK}" >"{self.path("mark")}"', shell=True))).end()
        self.assertEqual(self.read("mark").strip(), f"{self.run_id}.1.stop")

    def test_it_runs_in_the_directory_of_the_service(self) -> None:
        self.remains(self.left(plan=self.plan("pwd -P >here", shell=True, cwd=self.tmp))).end()
        self.assertEqual(self.read("here").strip(), os.path.realpath(self.tmp))

    def test_one_that_cannot_be_started_does_not_matter(self) -> None:
        process = self.service()
        self.remains(self.left(process, plan=self.plan(["/no/such/program"]))).end()
        self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_without_a_thread_to_run_it_the_signal_does_alone(self) -> None:
        process = self.service()
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.remains(self.left(process, plan=self.plan(["true"]))).end()
        self.assertEqual(process.wait(10), -signal.SIGTERM)


class EndOfRunTests(RemainsCase):
    """What the reaper does with what it was told."""

    def end(self, **entries: object) -> None:
        told = {f"{self.run_id}.{key[1:]}" if key[0] == "_" else key: entry for key, entry in entries.items()}
        encoded = {key.encode(): json.dumps(entry).encode() for key, entry in told.items()}
        remains.end_of_run(self.run_id, json.dumps({"moment": self.moment}), encoded)

    def entry(self, **facts) -> dict[str, object]:
        return {"leader": None, "stop_signal": 15, "kill_signal": 9, "supervised": False, "cgroup": "", **facts}

    def test_a_group_is_ended_as_it_wants(self) -> None:
        process = self.start()
        self.end(_1=self.entry(leader=self.identity(process), stop_signal=signal.SIGUSR1))
        self.assertEqual(process.wait(10), -signal.SIGUSR1)

    def test_the_changes_of_the_environment_reach_the_stop_command(self) -> None:
        program = 'echo "$COLOUR $SIZE ${SHAPE-none}" >"$0"'
        stop = [["sh", "-c", program, self.path("seen")], False, "/", {"COLOUR": "red", "SHAPE": None}]
        with mock.patch.dict(os.environ, COLOUR="blue", SIZE="big", SHAPE="round"):
            self.end(_1=self.entry(leader=GONE, stop_command=stop))
        self.assertEqual(self.read("seen"), "red big none\n")

    def test_its_directories_and_logs_are_removed(self) -> None:
        path, log = self.make_dir("caseexec-x"), self.path("caseexec-x.log")
        with open(log, "w"):
            pass
        self.end(**{path: {"paths": [path]}, "_1": self.entry(paths=[log])})
        self.assertFalse(os.path.exists(path) or os.path.exists(log))

    def record(self) -> str:
        where = self.path("records")
        record.write(record.RunRecord(id=self.run_id, pid=1, born=1, system=""), where)
        return where

    def test_the_record_is_removed_when_nothing_survived(self) -> None:
        self.end(record={"record": self.record()})
        self.assertFalse(os.path.exists(self.path("records")))

    def test_the_record_of_survivors_stays(self) -> None:
        where = self.record()
        with mock.patch.object(Remains, "end", return_value=[1]):
            self.end(record={"record": where})
        self.assertEqual(os.listdir(where), [f"{self.run_id}.json"])

    def leases(self) -> tuple[str, str]:
        """Leases of a live process (1), of another one (2) and of a dead one (3); their directory, and the first."""
        where, dead = self.make_dir("leases"), subprocess.Popen(SLEEP)
        os.chmod(where, 0o700)
        holders = [
            f"{pid} {born} {record.system()}\n" for pid, born in map(self.identity, (self.start(), self.start(), dead))
        ]
        dead.kill()
        dead.wait()
        for number, holder in enumerate(holders, 1):
            self.assertTrue(record.take_lease(record.lease_path(where, number), holder))
        return where, holders[0]

    def test_its_leases_go_even_if_it_lives_on_without_purpose_and_so_do_those_of_the_dead(self) -> None:
        where, holder = self.leases()
        self.end(leases={"leases": [self.path("never"), where], "holder": holder})
        self.assertEqual(os.listdir(where), ["port-2"])

    def test_beside_its_record_those_of_the_dead_go_and_those_of_the_living_stay(self) -> None:
        where, _ = self.leases()
        record.write(record.RunRecord(id=self.run_id, pid=1, born=1, system=""), where)
        self.end(record={"record": where})
        self.assertEqual(sorted(os.listdir(where)), ["port-1", "port-2"])

    def test_it_waits_for_another_reaper_that_removes_leases_just_then(self) -> None:
        where, holder = self.leases()
        descriptor = os.open(where, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        threading.Timer(0.1, fcntl.flock, (descriptor, fcntl.LOCK_UN)).start()
        self.end(leases={"leases": [where], "holder": holder})
        self.assertEqual(os.listdir(where), ["port-2"])

    def test_a_torn_entry_spares_nobody(self) -> None:
        process = self.service()
        entries = {b"x": b'{"leader', b"\xff": b"{}", b"record": b"{}"}
        remains.end_of_run(self.run_id, json.dumps({"moment": self.moment}), entries)
        self.assertEqual(process.wait(10), -signal.SIGTERM)


class OfRecordTests(RemainsCase):
    def of_record(self, process: subprocess.Popen, **facts) -> Remains:
        pid, born = self.identity(process)
        service = record.ServiceRecord(**{"mark": f"{self.run_id}.1", "pid": pid, "born": born, **facts})
        return remains.of_record(record.RunRecord(id=self.run_id, pid=1, born=1, system="", services=(service,)))

    def test_what_carries_its_marks_is_ended_as_it_wants(self) -> None:
        process = self.service()
        self.assertEqual(self.of_record(process, stop_signal=signal.SIGUSR1).end(), [])
        self.assertEqual(process.wait(10), -signal.SIGUSR1)

    def test_a_leader_without_the_mark_is_a_stranger(self) -> None:
        stranger = self.start()
        self.assertEqual(self.of_record(stranger).end(), [])
        self.assert_lives(stranger)

    def test_a_directory_that_is_no_cgroup_names_nobody(self) -> None:
        stranger = self.start(None)
        cgroup = self.make_dir(f"caseexec-{self.run_id}.1")
        with open(os.path.join(cgroup, "cgroup.threads"), "w") as file:
            file.write(f"{stranger.pid}\n")
        service = record.ServiceRecord(mark=f"{self.run_id}.1", pid=GONE.pid, born=GONE.born, cgroup=cgroup)
        run = record.RunRecord(id=self.run_id, pid=1, born=0, system=record.system(), services=(service,))
        self.assertEqual(remains.of_record(run).living(), [])

    def test_a_cgroup_of_another_name_is_somebody_elses(self) -> None:
        stranger = self.start()
        for path in ("/sys/fs/cgroup/user.slice", f"/c/caseexec-{self.run_id}.11", ""):
            with mock.patch.object(Cgroup, "pids", return_value=[stranger.pid]):
                self.assertEqual(self.living(self.of_record(stranger, cgroup=path)), set())
        with (
            mock.patch.object(Cgroup, "pids", return_value=[stranger.pid]),
            mock.patch.object(remains, "is_cgroup", return_value=True),
        ):
            found = self.of_record(stranger, cgroup=f"/c/caseexec-{self.run_id}.1")
            self.assertEqual(self.living(found), {stranger.pid})


class RemovePathsTests(RemainsCase):
    def test_only_what_is_named_as_ours_is_removed(self) -> None:
        ours, other, inside = self.make_dir("caseexec-a"), self.make_dir("other"), self.make_dir("caseexec-b")
        with open(os.path.join(inside, "file"), "w"):
            pass
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.tmp)
        names = [other, os.path.join(inside, "file"), f"{inside}/", f"{inside}/.", "caseexec-b", f"{ours}/../other", ""]
        self.assertEqual(remains.remove_paths(names), [])
        self.assertEqual(remains.remove_paths([ours, self.path("caseexec-never")]), [ours])
        self.assertEqual((sorted(os.listdir(self.tmp)), os.listdir(inside)), (["caseexec-b", "other", "tmp"], ["file"]))

    def test_behind_a_link_nothing_is_removed(self) -> None:
        target, link = self.make_dir("target"), self.path("caseexec-link")
        os.symlink(target, link)
        self.assertEqual(remains.remove_paths([link]), [link])
        self.assertTrue(os.path.isdir(target))
