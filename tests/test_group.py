import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from caseexec import cgroup, group, leader, processes, supervisor
from caseexec.cgroup import Cgroup
from caseexec.deadline import Deadline
from caseexec.group import ProcessGroup
from caseexec.registry import current_run
from tests.helpers.leaks import NothingRemains, alive, quickly, soon
from tests.helpers.programs import (
    CHILD_LEAVES,
    DOUBLE_FORKS,
    EXIT_3,
    EXIT_TRUE,
    IGNORES_TERM,
    SLEEP,
    STUBBORN_FAMILY,
    VANISHES,
    python,
)


class GroupCase(NothingRemains):
    kept_logs = 0

    def spawn(self, command, **popen) -> ProcessGroup:
        made = ProcessGroup(current_run().new_mark())
        self.addCleanup(made.kill)
        made.spawn(command, env={**os.environ, processes.MARK: made.mark}, **popen)
        return made

    def end(self, made: ProcessGroup, seconds: float = 10) -> group.Ending:
        return made.end(signal.SIGTERM, signal.SIGKILL, Deadline(seconds))

    def await_end(self, made: ProcessGroup) -> None:
        self.assertTrue(soon(lambda: made.poll() is not None))

    def background(self, made: ProcessGroup, name: str) -> int:
        """The pid that a program wrote into a file."""
        self.assertTrue(soon(lambda: os.path.exists(self.path(name))))
        with open(self.path(name)) as file:
            return int(file.read())


class SpawnTests(GroupCase):
    def test_the_command_leads_a_session_of_its_own(self) -> None:
        made = self.spawn(SLEEP)
        self.assertEqual((os.getpgid(made.pid), os.getsid(made.pid)), (made.pid, made.pid))


class EndTests(GroupCase):
    def test_it_ends_by_the_stop_signal(self) -> None:
        self.assertEqual(self.end(self.spawn(SLEEP)), group.Ending(-signal.SIGTERM))

    def test_a_helper_command_is_run_to_its_end(self) -> None:
        made = ProcessGroup(current_run().new_mark())
        command = ["sh", "-c", 'sleep 300 & echo $! >"$0"; exit 3', self.path("pid")]
        self.assertEqual(made.run(command, Deadline(10), env={**os.environ, processes.MARK: made.mark}), 3)
        self.assertFalse(alive(self.background(made, "pid")), "what it left behind is ended")

    def test_a_helper_command_that_takes_too_long_is_killed(self) -> None:
        made = ProcessGroup(current_run().new_mark())
        with quickly(self, 10):
            self.assertIsNone(made.run(SLEEP, Deadline(0.1), env={processes.MARK: made.mark}))
        self.assertFalse(alive(made.pid))

    def test_one_that_had_ended_keeps_its_return_code(self) -> None:
        made = self.spawn(EXIT_3, stdout=subprocess.DEVNULL)
        self.await_end(made)
        self.assertEqual(self.end(made).returncode, 3)

    def test_one_that_is_deaf_is_killed_after_its_time(self) -> None:
        made = self.spawn(IGNORES_TERM, stdout=subprocess.PIPE)
        self.addCleanup(made.process.stdout.close)
        made.process.stdout.readline()
        self.assertEqual(self.end(made, 0.2), group.Ending(-signal.SIGKILL, killed=(made.pid,)))

    def test_a_deaf_family_is_killed_to_the_last_child(self) -> None:
        made = self.spawn(STUBBORN_FAMILY, stdout=subprocess.PIPE)
        self.addCleanup(made.process.stdout.close)
        made.process.stdout.readline()
        family = made.living()
        self.assertEqual(len(family), 21)
        self.assertEqual(sorted(self.end(made, 0.2).killed), sorted(family))
        self.assertFalse(any(map(alive, family)))

    def test_one_that_is_paused_hears_the_stop_signal(self) -> None:
        made = self.spawn(SLEEP)
        made.signal(signal.SIGSTOP)
        self.assertEqual(self.end(made), group.Ending(-signal.SIGTERM))

    def test_a_shell_dies_with_all_its_children(self) -> None:
        made = self.spawn("sleep 300 & sleep 300 & wait", shell=True)
        self.assertTrue(soon(lambda: len(made.living()) == 3))
        children = made.living()
        self.end(made)
        self.assertFalse(any(map(alive, children)))

    def test_a_daemon_that_left_the_session_is_ended_by_its_mark(self) -> None:
        made = self.spawn(python(DOUBLE_FORKS, self.path("pid")))
        daemon = self.background(made, "pid")
        self.await_end(made)
        self.assertNotEqual(os.getsid(daemon), made.pid)
        self.assertTrue(soon(lambda: made.living() == [daemon]))
        self.assertEqual(self.end(made), group.Ending(0))
        self.assertFalse(alive(daemon))

    def test_a_daemon_that_overwrote_its_environment_is_ended_by_an_inherited_descriptor(self) -> None:
        # As Redis and nginx do, to set their titles; here by a program that replaces itself with an empty environment.
        program = DOUBLE_FORKS.replace("time.sleep(300)", "os.execve('/bin/sleep', ['sleep', '300'], {})")
        made = self.spawn(python(program, self.path("pid")))
        daemon = self.background(made, "pid")
        self.await_end(made)
        self.assertTrue(soon(lambda: processes.table().mark(daemon) == ""))
        self.assertEqual(self.end(made), group.Ending(0))
        self.assertFalse(alive(daemon))

    def test_a_child_with_a_session_and_an_empty_environment_is_ended_by_its_parent(self) -> None:
        made = self.spawn(python(CHILD_LEAVES, self.path("pid")))
        child = self.background(made, "pid")
        self.assertIn(child, made.living())
        self.end(made)
        self.assertFalse(alive(child))

    def test_where_the_last_pid_is_not_told_everybody_is_looked_at(self) -> None:
        with mock.patch.object(processes.Procfs, "_last_pid", return_value=0):
            made = self.spawn(STUBBORN_FAMILY, stdout=subprocess.PIPE)
            self.addCleanup(made.process.stdout.close)
            made.process.stdout.readline()
            self.assertEqual(len(made.living()), 21)
            self.end(made, 0.1)

    def test_without_a_descriptor_left_to_look_with_the_group_is_ended_all_the_same(self) -> None:
        made = self.spawn(STUBBORN_FAMILY, stdout=subprocess.PIPE)
        self.addCleanup(made.process.stdout.close)
        made.process.stdout.readline()
        family = made.living()
        with mock.patch("caseexec.processes.procfs._read", side_effect=OSError(errno.EMFILE, "Too many open files")):
            self.end(made, 0.1)
        self.assertTrue(soon(lambda: not any(map(alive, family))))

    def test_an_interrupt_in_the_grace_kills_at_once(self) -> None:
        made = self.spawn(IGNORES_TERM, stdout=subprocess.PIPE)
        self.addCleanup(made.process.stdout.close)
        made.process.stdout.readline()
        interrupts = iter([KeyboardInterrupt])

        def pause(seconds: float) -> None:
            for interrupt in interrupts:
                raise interrupt
            time.sleep(seconds)

        with mock.patch.object(made, "pause", pause), self.assertRaises(KeyboardInterrupt):
            self.end(made, 60)
        self.assertFalse(alive(made.pid))

    def test_a_kill_signal_that_does_not_do_is_followed_by_sigkill(self) -> None:
        made = self.spawn(IGNORES_TERM, stdout=subprocess.PIPE)
        self.addCleanup(made.process.stdout.close)
        made.process.stdout.readline()
        with mock.patch.object(group, "_KILL_PATIENCE", 1):
            self.assertEqual(made.kill(signal.SIGTERM).returncode, -signal.SIGKILL)

    def test_the_reaper_of_a_run_within_ends_by_itself(self) -> None:
        made, _ = self.with_reaper("cat; sleep 0.1; echo done >done")
        made.send(signal.SIGKILL)
        made.kill()
        self.assertTrue(os.path.exists(self.path("done")))

    def test_one_that_does_not_is_killed_after_its_time(self) -> None:
        made, reaper = self.with_reaper("sleep 300")
        with mock.patch.object(group, "REAPERS_TIME", 0.05):
            self.assertEqual(made.kill().returncode, -signal.SIGKILL)
        self.assertFalse(alive(reaper))

    def test_it_is_never_told_by_another_signal(self) -> None:
        made, _ = self.with_reaper("cat; sleep 0.1; echo done >done")
        times = iter((0.5, 20))  # For the first signal, and for SIGKILL.
        with (
            mock.patch.object(group, "REAPERS_TIME", 10),
            mock.patch.object(group, "Deadline", lambda _: Deadline(next(times))),
        ):
            self.assertEqual(made.kill(signal.SIGUSR1).returncode, -signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path("done")))

    def test_it_is_not_said_to_have_been_killed_unless_it_was(self) -> None:
        for seconds in (10, 0):
            with self.subTest(seconds), mock.patch.object(group, "REAPERS_TIME", seconds):
                # One that is to be killed must not end by itself before that.
                made, reaper = self.with_reaper("cat; sleep 0.1" if seconds else "sleep 300")
                killed = self.end(made, 0).killed
                self.assertEqual((made.pid in killed, reaper in killed), (True, seconds == 0))
                os.unlink(self.path("pid"))

    def with_reaper(self, work: str) -> tuple[ProcessGroup, int]:
        """A group with one who reads from it, in a session of its own, as the reaper of a run within does."""
        reaper = f"read ready; echo $$ >new; mv new pid; {work}"
        mark = f'{processes.MARK}="${processes.MARK}/{processes.REAPING}"'
        command = f"trap : USR1 TERM; (trap '' USR1 TERM; echo ready; exec sleep 300) | {mark} setsid sh -c '{reaper}'"
        made = self.spawn(["sh", "-c", command], cwd=self.tmp)
        return made, self.background(made, "pid")

    def test_an_interrupted_spawn_leaves_nothing(self) -> None:
        made = ProcessGroup(current_run().new_mark())
        born = subprocess.Popen

        class Interrupted(born):
            def __init__(self, *args, **kwargs) -> None:
                super().__init__(*args, **kwargs)
                self.returncode = 0  # Nobody knows of it: no warning when it is deleted.
                raise KeyboardInterrupt

        with mock.patch("subprocess.Popen", Interrupted), self.assertRaises(KeyboardInterrupt):
            made.spawn(SLEEP, env={**os.environ, processes.MARK: made.mark})
        self.assertIsNone(made.process)
        made.kill()
        self.assertEqual(made.living(), [])


class HiddenCase(GroupCase):
    """A daemon that has left session, parent, environment and descriptors."""

    def vanished(self, made: ProcessGroup, waits_for: str) -> int:
        """The pid of the daemon that a group's command has left behind."""
        self.addCleanup(made.kill)
        command = python(VANISHES, self.path("pid"), waits_for)
        made.spawn(supervisor.command(command) if made.supervised else command, env={processes.MARK: made.mark})
        daemon = self.background(made, "pid")
        self.addCleanup(self._kill, processes.table().status(daemon).identity)
        if made.supervised:
            self.assertTrue(soon(lambda: made._table.children(made.pid) == [daemon]))
        self.assertTrue(soon(lambda: not processes.mark_of(made._table, daemon)))
        return daemon

    def _kill(self, identity: processes.Identity) -> None:
        processes.table().send(identity, signal.SIGKILL)

    def test_without_a_cgroup_and_a_supervisor_it_is_out_of_reach(self) -> None:
        # The two means below are there for it: it must be one that nothing else reaches.
        made = ProcessGroup(current_run().new_mark())
        daemon = self.vanished(made, "")
        self.await_end(made)
        self.assertEqual((made.living(), self.end(made)), ([], group.Ending(0)))
        self.assertTrue(alive(daemon))


@unittest.skipIf(cgroup.parent() is None, "no cgroup v2 can be made here")
class CgroupTests(HiddenCase):
    def make(self) -> ProcessGroup:
        mark = current_run().new_mark()
        return ProcessGroup(mark, Cgroup(os.path.join(cgroup.parent(), f"caseexec-{mark}")))

    def test_a_daemon_that_left_no_trace_is_found_and_asked_to_end(self) -> None:
        made = self.make()
        daemon = self.vanished(made, made.mark)
        self.await_end(made)
        self.assertTrue(soon(lambda: made.living() == [daemon]))
        self.assertEqual(self.end(made), group.Ending(0))
        self.assertFalse(alive(daemon))

    def test_so_it_is_killed(self) -> None:
        made = self.make()
        daemon = self.vanished(made, made.mark)
        made.kill()
        self.assertFalse(alive(daemon))

    def test_the_command_is_a_member_from_birth_and_nothing_remains_of_the_cgroup(self) -> None:
        made = self.make()
        path = made.cgroup.path
        made.spawn(SLEEP, env={processes.MARK: made.mark})
        self.assertEqual(made.cgroup.pids(), [made.pid])
        self.assertEqual(self.end(made), group.Ending(-signal.SIGTERM))
        self.assertFalse(os.path.exists(path))

    def test_nothing_remains_of_it_when_the_program_does_not_exist(self) -> None:
        made = self.make()
        path = made.cgroup.path
        with self.assertRaises(FileNotFoundError):
            made.spawn(["/no/such/program"], env={processes.MARK: made.mark})
        made.kill()
        self.assertFalse(os.path.exists(path))

    def test_nothing_remains_of_it_when_its_making_is_interrupted(self) -> None:
        made = self.make()
        path = made.cgroup.path
        with (
            mock.patch.object(cgroup, "_write", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            made.spawn(SLEEP, env={processes.MARK: made.mark})
        self.assertFalse(os.path.exists(path))

    def test_what_a_signal_handler_starts_meanwhile_is_not_ended_with_it(self) -> None:
        others: list[subprocess.Popen] = []

        def handle(*_: object) -> None:
            others.append(subprocess.Popen(SLEEP))

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handle))
        popen = subprocess.Popen

        def interrupted(command: list[str], **options) -> subprocess.Popen:
            if options.get("start_new_session"):
                signal.raise_signal(signal.SIGALRM)
                process = popen(command, **options)
                signal.raise_signal(signal.SIGALRM)
                return process
            return popen(command, **options)

        for command in (SLEEP, ["/no/such/program"]):
            with self.subTest(command), mock.patch.object(subprocess, "Popen", interrupted):
                made = self.make()
                with contextlib.suppress(FileNotFoundError):
                    made.spawn(command, env={processes.MARK: made.mark})
                made.kill()
        self.assertEqual([other.poll() for other in others], [None] * 3)
        for other in others:
            other.kill()
            other.wait()

    def test_one_that_cannot_be_made_changes_nothing(self) -> None:
        made = ProcessGroup(current_run().new_mark(), Cgroup("/no/such/cgroup"))
        self.addCleanup(made.kill)
        made.spawn(SLEEP, env={processes.MARK: made.mark})
        self.assertEqual(made.living(), [made.pid])
        self.assertEqual(self.end(made), group.Ending(-signal.SIGTERM))


@unittest.skipUnless(supervisor.available(), "there are no supervisors here")
class SupervisedTests(HiddenCase):
    def make(self) -> ProcessGroup:
        return ProcessGroup(current_run().new_mark(), supervised=True)

    def test_a_daemon_that_left_no_trace_is_found_and_asked_to_end(self) -> None:
        made = self.make()
        daemon = self.vanished(made, "")
        self.assertIsNone(made.poll(), "its supervisor waits for it")
        self.assertIn(daemon, made.living())
        self.assertEqual(self.end(made), group.Ending(0))
        self.assertFalse(alive(daemon))

    def test_so_it_is_killed_and_the_supervisor_is_the_last(self) -> None:
        made = self.make()
        daemon = self.vanished(made, "")
        sent, send, killpg = [], made._table.send, os.killpg
        with (
            mock.patch.object(
                made._table, "send", lambda identity, number: sent.append(identity.pid) or send(identity, number)
            ),
            mock.patch.object(
                os, "killpg", lambda pid, number: sent.append((pid, alive(daemon))) or killpg(pid, number)
            ),
        ):
            made.kill()
        self.assertEqual(sent[0], daemon)
        self.assertNotIn((made.pid, True), sent)
        self.assertFalse(alive(daemon))

    def test_a_deaf_daemon_is_killed_after_its_time(self) -> None:
        made = self.make()
        # Its signal mask is one of the few things that a daemon takes along.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            daemon = self.vanished(made, "")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.assertIn(daemon, self.end(made, 0.2).killed)
        self.assertFalse(alive(daemon))

    def test_when_the_supervisor_is_killed_who_is_known_is_ended(self) -> None:
        made = self.make()
        daemon = self.vanished(made, "")
        self.assertIn(daemon, made.living())
        os.kill(made.pid, signal.SIGKILL)
        self.await_end(made)
        made.kill()
        self.assertFalse(alive(daemon))


class StrangersTests(GroupCase):
    def bystander(self, mark: str | None = None) -> subprocess.Popen:
        environment = {**os.environ, **({processes.MARK: mark} if mark else {})}
        process = subprocess.Popen(SLEEP, env=environment, start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_marks_are_compared_whole(self) -> None:
        made = self.spawn(SLEEP)
        others = [self.bystander(f"{made.mark}0"), self.bystander(f"x{made.mark}"), self.bystander(made.mark[:-1])]
        self.assertEqual(made.living(), [made.pid])
        self.end(made)
        self.assertEqual([process.poll() for process in others], [None] * 3)

    def test_a_group_whose_number_a_stranger_took_is_not_signalled(self) -> None:
        made = self.spawn(EXIT_TRUE)
        made.process.wait()
        stranger = self.bystander()
        # As if the number of the leader, which died long ago, had been given out again.
        made.process.pid = stranger.pid
        self.assertFalse(made.held)
        made.signal(signal.SIGKILL)
        made.send(signal.SIGKILL)
        self.end(made)
        self.assertIsNone(stranger.poll())

    def test_a_fork_of_this_run_is_not_taken_for_the_service(self) -> None:
        # It has inherited the descriptor that marks the service, as forks of other threads may during a spawn.
        made = self.spawn(SLEEP)
        marker = processes.marker(made.mark)
        child = os.fork()
        if child == 0:
            time.sleep(300)
            os._exit(0)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        with mock.patch.object(made._table, "since", return_value=made._table.everybody()):
            self.assertEqual(made.living(), [made.pid], "neither the fork nor this process itself")
        os.close(marker)

    def test_a_forked_child_touches_nothing(self) -> None:
        made = self.spawn(SLEEP)
        child = os.fork()
        if child == 0:
            made.kill()
            made.signal(signal.SIGKILL)
            made.send(signal.SIGKILL)
            self.end(made)
            os._exit(made.held)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertIsNone(made.poll())


class WithoutLinuxTests(SpawnTests, EndTests):
    """The same with the portable process table, without pidfd and waitid, as on macOS."""

    def setUp(self) -> None:
        super().setUp()
        for patch in (
            mock.patch.object(processes, "table", lambda: processes.Portable()),
            mock.patch.object(leader, "_watch_exit", return_value=None),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        waitid = os.waitid
        del os.waitid
        self.addCleanup(setattr, os, "waitid", waitid)

    def test_a_daemon_that_overwrote_its_environment_is_ended_by_an_inherited_descriptor(self) -> None:
        self.skipTest("psutil does not tell the descriptors of others")


class ErrorTests(GroupCase):
    def test_a_program_that_does_not_exist_raises_what_popen_raises(self) -> None:
        made = ProcessGroup("x")
        with self.assertRaises(FileNotFoundError) as caught:
            made.spawn(["/no/such/program"], env={})
        self.assertEqual(caught.exception.errno, errno.ENOENT)
        self.assertEqual((made.pid, made.poll(), made.kill().returncode), (0, None, None))


if sys.platform != "linux":
    del WithoutLinuxTests
