import os
import signal
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

from caseexec import leader, processes
from caseexec.leader import Leader
from tests.helpers.leaks import NothingRemains, descriptors, quickly, soon
from tests.helpers.programs import EXIT_3, EXIT_TRUE, SLEEP


class LeaderCase(NothingRemains):
    def start(self, command=SLEEP, **popen) -> Leader:
        held = Leader(subprocess.Popen(command, **popen))
        self.addCleanup(held.process.wait)
        self.addCleanup(held.process.kill)
        return held

    def await_end(self, held: Leader) -> None:
        self.assertTrue(soon(lambda: held.poll() is not None))

    def assert_its_end_wakes_a_pause(self) -> None:
        held = self.start()
        threading.Timer(0.05, os.kill, (held.process.pid, signal.SIGKILL)).start()
        with quickly(self, 30):
            held.pause(60)
        held.reap()


class LeaderTests(LeaderCase):
    def test_its_end_is_seen_without_reaping_it(self) -> None:
        held = self.start(EXIT_3, stdout=subprocess.DEVNULL)
        self.await_end(held)
        self.assertEqual((held.poll(), held.process.returncode, held.held), (3, None, True))

    def test_a_death_by_signal_is_a_negative_return_code(self) -> None:
        held = self.start()
        os.kill(held.process.pid, signal.SIGSEGV)
        self.await_end(held)
        self.assertEqual(held.poll(), -signal.SIGSEGV)

    def test_one_that_somebody_else_reaped_is_not_held(self) -> None:
        held = self.start(EXIT_TRUE)
        os.waitpid(held.process.pid, 0)
        self.assertEqual((held.poll() is not None, held.held), (True, False))

    def test_one_reaped_through_its_popen_is_not_held(self) -> None:
        held = self.start(EXIT_3, stdout=subprocess.DEVNULL)
        self.assertEqual(held.process.wait(), 3)
        self.assertEqual((held.poll(), held.held), (3, False))

    def test_in_a_forked_child_it_is_not_held(self) -> None:
        held = self.start()
        child = os.fork()
        if child == 0:
            os._exit(held.held or held.poll() is not None)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(held.held)

    def test_its_end_wakes_a_pause(self) -> None:
        self.assert_its_end_wakes_a_pause()

    def test_a_descriptor_above_those_that_select_takes_still_wakes_a_pause(self) -> None:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 1200:
            self.skipTest("too few descriptors allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with tempfile.TemporaryFile() as file:
            many = [os.dup(file.fileno()) for _ in range(1050)]
            try:
                self.assert_its_end_wakes_a_pause()
            finally:
                for descriptor in many:
                    os.close(descriptor)

    def test_one_that_runs_is_not_reaped(self) -> None:
        held = self.start()
        self.assertIsNone(held.reap())
        self.assertTrue(held.held)

    def test_reaped_it_keeps_its_return_code_and_no_descriptor(self) -> None:
        before = descriptors()
        held = self.start(EXIT_3, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        held.pause(0)
        self.await_end(held)
        self.assertEqual((held.reap(), held.held, held.reap()), (3, False, 3))
        self.assertEqual(descriptors() - before, set())


class TwoThreadsTests(LeaderCase):
    def zombie(self) -> Leader:
        held = self.start(EXIT_TRUE)
        self.await_end(held)
        return held

    def while_signalled(self, held: Leader, meanwhile) -> None:
        """Do something between the look whether a leader is held and the signal to its group."""
        with mock.patch.object(os, "killpg", side_effect=lambda *_: meanwhile()) as killpg:
            held.signal_group(signal.SIGUSR1)
        killpg.assert_called_once_with(held.process.pid, signal.SIGUSR1)

    def assert_not_reaped_meanwhile(self, way) -> None:
        held = self.start()
        other = threading.Thread(target=way, args=(held,))

        def meanwhile() -> None:
            os.kill(held.process.pid, signal.SIGKILL)
            self.assertTrue(soon(lambda: processes.table().status(held.process.pid).zombie))
            other.start()
            other.join(0.2)
            self.assertTrue(other.is_alive())
            self.assertIsNone(held.process.returncode)

        self.while_signalled(held, meanwhile)
        other.join()
        self.assertEqual(held.process.returncode, -signal.SIGKILL)

    def test_no_thread_reaps_it_while_another_signals_its_group(self) -> None:
        self.assert_not_reaped_meanwhile(Leader.reap)

    def test_nor_when_it_has_just_looked_whether_it_has_ended(self) -> None:
        def reap(held: Leader) -> None:
            with mock.patch.object(held, "poll", return_value=-signal.SIGKILL):
                held.reap()

        self.assert_not_reaped_meanwhile(reap)

    @unittest.skipUnless(hasattr(os, "waitid"), "it can't be taken away")
    def test_nor_where_to_learn_the_status_is_to_reap(self) -> None:
        self.addCleanup(setattr, os, "waitid", os.waitid)
        del os.waitid
        self.assert_not_reaped_meanwhile(Leader.poll)

    def test_a_signal_handler_that_looks_at_it_meanwhile_does_not_wait_for_ever(self) -> None:
        held = self.zombie()
        with quickly(self, 30):
            self.while_signalled(held, lambda: self.assertEqual((held.poll(), held.held), (0, True)))
            self.while_signalled(held, held.reap)

    def test_one_that_was_reaped_is_not_signalled(self) -> None:
        held = self.zombie()
        held.reap()
        with mock.patch.object(os, "killpg") as killpg:
            held.signal_group(signal.SIGKILL)
        killpg.assert_not_called()

    def test_a_forked_child_does_nothing_and_does_not_wait_for_a_thread_that_it_has_not(self) -> None:
        running, reaped = self.start(), self.zombie()
        reaped.reap()
        held, go_on = threading.Barrier(2, timeout=30), threading.Event()

        def hold() -> None:
            with running._reaping, reaped._reaping:
                held.wait()
                go_on.wait(30)

        other = threading.Thread(target=hold)
        other.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            running.signal_group(signal.SIGKILL)
            running.pause(0)
            told = (running.poll(), running.held, running.reap(), reaped.poll(), reaped.held, reaped.reap())
            os._exit(told != (None, False, None, 0, False, 0))
        go_on.set()
        other.join()
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertIsNone(running.poll())

    def test_one_that_another_thread_reaps_does_not_disturb_a_pause(self) -> None:
        held = self.start()
        watched = held._watch()
        wait_readable = leader._wait_readable

        def reaped_first(watch, seconds: float) -> None:
            os.kill(held.process.pid, signal.SIGKILL)
            self.await_end(held)
            held.reap()
            wait_readable(watch, seconds)

        with quickly(self, 30), mock.patch.object(leader, "_wait_readable", reaped_first):
            held.pause(60)
        self.assertTrue(watched.closed)
        with mock.patch.object(leader.time, "sleep") as sleep:
            held.pause(7)
        sleep.assert_called_once_with(7)


class WithoutWaitidTests(LeaderCase):
    """Without waitid, pidfd and kqueue, as nearly on macOS."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(leader, "_watch_exit", return_value=None)
        patch.start()
        self.addCleanup(patch.stop)
        waitid = os.waitid
        del os.waitid
        self.addCleanup(setattr, os, "waitid", waitid)

    def test_to_learn_the_status_is_to_reap(self) -> None:
        held = self.start(EXIT_3, stdout=subprocess.DEVNULL)
        self.await_end(held)
        self.assertEqual((held.poll(), held.held, held.reap()), (3, False, 3))

    def test_a_pause_sleeps(self) -> None:
        held = self.start()
        with mock.patch.object(leader.time, "sleep") as sleep:
            held.pause(7)
        sleep.assert_called_once_with(7)


if not hasattr(os, "waitid"):
    del WithoutWaitidTests
