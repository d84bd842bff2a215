import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable
from unittest import mock

import caseexec
from caseexec import errors, executors, probes
from caseexec.executors import (
    CommandExecutor,
    Executor,
    HTTPExecutor,
    OutputExecutor,
    SimpleExecutor,
    TCPExecutor,
)
from caseexec.executors.fate import Cancelled, Fate
from caseexec.group import ProcessGroup
from caseexec.registry import current_run
from tests.helpers.leaks import alive, quickly, soon
from tests.helpers.programs import ACCEPTS_BUT_NEVER_ANSWERS, EXIT_3, IGNORES_TERM, SLEEP, python
from tests.test_executors import ExecutorCase

UP = ["sh", "-c", "echo up; exec sleep 300"]


class FateTests(ExecutorCase):
    def test_who_comes_first_decides(self) -> None:
        fate = Fate()
        self.assertEqual((fate.cancelled, fate.done), (False, False))
        self.assertTrue(fate.decide(cancelled=True))
        self.assertTrue(fate.decide(cancelled=False))
        self.assertEqual((fate.cancelled, fate.done), (True, False))
        fate = Fate()
        self.assertFalse(fate.decide(cancelled=False))
        self.assertFalse(fate.decide(cancelled=True))
        self.assertEqual((fate.cancelled, fate.done), (False, True))

    def test_of_many_threads_one_decides(self) -> None:
        for _ in range(200):
            fate, begin, found = Fate(), threading.Barrier(4), []

            def decide(cancelled: bool, fate=fate, begin=begin, found=found) -> None:
                begin.wait(30)
                found.append(fate.decide(cancelled=cancelled))

            threads = [threading.Thread(target=decide, args=(bool(number % 2),)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(found, [fate.cancelled] * 4)


class CancelCase(ExecutorCase):
    kept_logs = 0

    def cancel_when(self, executor: SimpleExecutor, condition: Callable[[], object]) -> threading.Thread:
        """Cancel in another thread, as soon as something is so."""

        def cancel() -> None:
            soon(condition, 30)
            executor.cancel()

        other = threading.Thread(target=cancel)
        other.start()
        self.addCleanup(other.join)
        return other

    def assert_cancelled(self, act: Callable[[], object], executor: SimpleExecutor) -> None:
        """Something raises Cancelled, and nothing is left of the command."""
        with quickly(self, 20), self.assertRaises(Cancelled) as caught:
            act()
        self.assertEqual(str(caught.exception), executor._who())
        self.assert_not_started(executor)

    def assert_not_started(self, executor: SimpleExecutor) -> None:
        self.assertEqual((executor.process, executor.running(), executor.living()), (None, False, []))
        self.assertEqual(current_run().groups, set())
        leases = f"caseexec-{os.getuid()}"
        self.assertEqual([name for name in os.listdir(self.path("tmp")) if name != leases], [])

    def assert_can_be_started(self, executor: SimpleExecutor) -> None:
        executor.start()
        self.assertTrue(executor.running())
        executor.stop()


class BeforeTests(CancelCase):
    """Before the command is run."""

    def test_a_start_that_begins_afterwards_runs_nothing_and_the_next_one_does(self) -> None:
        for executor in (SimpleExecutor(SLEEP), OutputExecutor(UP, "up"), self.tcp()):
            executor.cancel()
            executor.cancel()
            with (
                mock.patch.object(ProcessGroup, "spawn") as spawn,
                mock.patch.object(type(executor), "pre_start_check", create=True) as check,
            ):
                self.assert_cancelled(executor.start, executor)
            self.assertEqual((spawn.called, check.called), (False, False))
            self.assert_can_be_started(executor)

    def test_so_does_one_whose_check_before_the_start_was_under_way(self) -> None:
        executor = self.tcp()
        real = executor.pre_start_check
        with (
            mock.patch.object(executor, "pre_start_check", lambda: executor.cancel() or real()),
            mock.patch.object(ProcessGroup, "spawn") as spawn,
        ):
            self.assert_cancelled(executor.start, executor)
        spawn.assert_not_called()
        self.assert_can_be_started(executor)

    def test_so_does_one_that_was_just_about_to_run_it(self) -> None:
        executor = SimpleExecutor(SLEEP)
        real = executor._open_logs
        with (
            mock.patch.object(executor, "_open_logs", lambda: real() or executor.cancel()),
            mock.patch.object(ProcessGroup, "spawn") as spawn,
        ):
            self.assert_cancelled(executor.start, executor)
        spawn.assert_not_called()
        self.assert_can_be_started(executor)

    def test_a_stop_in_between_changes_nothing(self) -> None:
        executor = SimpleExecutor(SLEEP)
        executor.cancel()
        executor.stop().kill()
        self.assert_cancelled(executor.start, executor)

    def test_a_start_that_fails_for_another_reason_leaves_it_to_the_next_one(self) -> None:
        executor = OutputExecutor(EXIT_3, "never")
        abort = executor._abort
        with (
            mock.patch.object(
                executor, "_abort", lambda *args, **options: executor.cancel() or abort(*args, **options)
            ),
            self.assertRaises(errors.ProcessExitedWithError),
        ):
            executor.start()
        executor.remove_logs()
        self.assert_cancelled(executor.start, executor)
        with self.assertRaises(errors.ProcessExitedWithError):
            executor.start()
        executor.remove_logs()


class MeanwhileTests(CancelCase):
    """While the start is under way."""

    def test_it_is_noticed_just_after_the_command_was_run(self) -> None:
        for executor in (SimpleExecutor(SLEEP), self.tcp(), OutputExecutor(UP, "up")):
            spawn, pids = ProcessGroup.spawn, []

            def spawn_and_cancel(group, *args, executor=executor, spawn=spawn, pids=pids, **popen) -> None:
                spawn(group, *args, **popen)
                pids.append(group.pid)
                executor.cancel()

            with (
                mock.patch.object(ProcessGroup, "spawn", spawn_and_cancel),
                mock.patch.object(type(executor), "after_start_check", create=True) as check,
            ):
                self.assert_cancelled(executor.start, executor)
            check.assert_not_called()
            self.assertEqual(list(map(alive, pids)), [False])
            self.assert_can_be_started(executor)

    def test_a_wait_ends_whatever_it_waits_for(self) -> None:
        web = self.port()
        for executor, begun in (
            (TCPExecutor(SLEEP, "127.0.0.1", self.port(), timeout=60), lambda executor: executor._refusal),
            (OutputExecutor(SLEEP, "never", timeout=None), lambda executor: executor._refusal),
            (HTTPExecutor(python(ACCEPTS_BUT_NEVER_ANSWERS, web), f"http://127.0.0.1:{web}", timeout=60,
                          request_timeout=60), lambda _: probes.TCPProbe("127.0.0.1", web).occupant()),
            (CommandExecutor(SLEEP, ["sh", "-c", f": >{self.path('asked')}; sleep 300"], timeout=60),
             lambda _: os.path.exists(self.path("asked"))),
            (Executor(SLEEP, probe=lambda _: False, timeout=60, sleep=60), lambda executor: executor._refusal),
        ):  # fmt: skip
            with self.subTest(executor):
                self.cancel_when(executor, lambda executor=executor, begun=begun: executor.process and begun(executor))
                self.assert_cancelled(executor.start, executor)

    def test_the_command_is_asked_to_end_and_killed_when_it_does_not(self) -> None:
        polite = ["sh", "-c", f"trap 'echo bye >{self.path('bye')}; exit' TERM; echo up; while :; do sleep 0.01; done"]
        executor = OutputExecutor(polite, "up", probe=lambda executor: executor.cancel())
        with mock.patch.object(executors.simple, "_ABORT_GRACE", 15):
            self.assert_cancelled(executor.start, executor)
        self.assertTrue(os.path.exists(self.path("bye")))
        executor = OutputExecutor(IGNORES_TERM, "deaf", probe=lambda executor: executor.cancel())
        with mock.patch.object(executors.simple, "_ABORT_GRACE", 0.1):
            self.assert_cancelled(executor.start, executor)
        self.assertEqual(executor._returncode, -signal.SIGKILL)

    def test_it_counts_also_when_the_command_has_become_ready_meanwhile(self) -> None:
        executor = OutputExecutor(UP, "up", probe=lambda executor: executor.cancel() or True)
        self.assert_cancelled(executor.start, executor)

    def test_who_catches_every_exception_lets_it_pass(self) -> None:
        def probe(executor: Executor) -> bool:
            executor.cancel()
            try:
                executor.wait_for(lambda: True)
            except Exception:
                return True
            raise AssertionError

        for make in (lambda: Executor(SLEEP, probe=probe), lambda: OutputExecutor(UP, "up", probe=probe)):
            executor = make()
            self.assert_cancelled(executor.start, executor)
        self.assertFalse(issubclass(Cancelled, Exception))

    def test_who_catches_it_all_the_same_does_not_undo_it(self) -> None:
        class Stubborn(SimpleExecutor):
            def start(self):
                with self._cancellable():
                    super().start()
                    try:
                        self.wait_for(lambda: self.cancel())
                    except BaseException:
                        return super().start()

        executor = Stubborn(SLEEP)
        self.assert_cancelled(executor.start, executor)

    def test_a_loop_of_ones_own_that_looks_at_the_time_is_ended(self) -> None:
        class Loop(SimpleExecutor):
            def start(self):
                with self._cancellable():
                    super().start()
                    while self.check_timeout():
                        self.cancel()
                    raise errors.TimeoutExpired(self, self._timeout)

        executor = Loop(SLEEP, timeout=60)
        self.assert_cancelled(executor.start, executor)

        class Check(Executor):
            def pre_start_check(self) -> bool:
                return False

            def after_start_check(self) -> bool:
                while self.check_timeout():
                    self.cancel()
                raise errors.TimeoutExpired(self, self._timeout)

        executor = Check(SLEEP, timeout=60)
        self.assert_cancelled(executor.start, executor)

    def test_what_another_executor_raises_is_not_ones_own(self) -> None:
        other = SimpleExecutor(SLEEP)
        other.cancel()
        executor = Executor(SLEEP, probe=lambda _: other.start())
        with self.assertRaises(Cancelled) as caught:
            executor.start()
        self.assertEqual(str(caught.exception), other._who())
        self.assert_not_started(executor)
        self.assertFalse(executor._fate.cancelled)

    def test_what_was_to_be_started_elsewhere_is_not_waited_for_any_longer(self) -> None:
        class Elsewhere(TCPExecutor):
            def start(self):
                self._set_timeout()
                return self.wait_for(self.after_start_check)

        executor = Elsewhere([], "127.0.0.1", self.port(), timeout=60)
        self.cancel_when(executor, lambda: executor._refusal)
        self.assert_cancelled(executor.start, executor)


class ReadyTests(CancelCase):
    """When the command is ready."""

    def test_it_does_nothing_neither_now_nor_at_the_next_start(self) -> None:
        for executor in (SimpleExecutor(SLEEP), OutputExecutor(UP, "up")):
            executor.start()
            executor.cancel()
            self.assertTrue(executor.running() and executor.check_timeout())
            with executor.stopped():
                pass
            self.assertTrue(executor.running())
            executor.cancel()
            executor.stop()
            self.assert_can_be_started(executor)

    def test_stopped_it_can_be_cancelled_again(self) -> None:
        executor = SimpleExecutor(SLEEP)
        with self.assertRaises(Cancelled), executor, executor.stopped():
            executor.cancel()
        self.assert_not_started(executor)

    def test_one_that_has_ended_by_itself_can_be_cancelled_while_it_is_started_again(self) -> None:
        executor = OutputExecutor(["sh", "-c", "echo up"], "up").start()
        self.assertTrue(soon(lambda: not executor.running()))
        executor._further = probes.as_probe(lambda executor: executor.cancel())
        self.assert_cancelled(executor.start, executor)

    def test_a_start_that_was_refused_as_it_runs_changes_nothing(self) -> None:
        with self.tcp() as executor:
            with self.assertRaises(errors.AlreadyRunning):
                executor.start()
            executor.cancel()
            self.assertTrue(executor.running())
        self.assert_can_be_started(executor)

    def test_a_further_wait_ends_and_the_command_with_it(self) -> None:
        executor = SimpleExecutor(SLEEP, timeout=60).start()
        asked = []
        self.cancel_when(executor, lambda: asked)
        self.assert_cancelled(lambda: executor.wait_for(lambda: asked.append(1)), executor)
        self.assert_can_be_started(executor)

    def test_it_is_too_late_when_the_start_has_looked_for_the_last_time(self) -> None:
        executor = SimpleExecutor(SLEEP)
        heed = executor._heed_cancel
        with mock.patch.object(executor, "_heed_cancel", lambda: heed() or (executor.process and executor.cancel())):
            executor.start()
        self.assertTrue(executor.running())
        executor.stop()
        self.assert_can_be_started(executor)

    def test_at_any_moment_it_is_one_or_the_other(self) -> None:
        outcomes = set()
        for number in range(60):
            executor, delay = OutputExecutor(UP, "up", timeout=60), 0.0005 * (number % 30)
            begin = threading.Barrier(2, timeout=30)

            def cancel(executor=executor, begin=begin, delay=delay) -> None:
                begin.wait()
                end = time.monotonic() + delay
                while time.monotonic() < end:
                    pass
                executor.cancel()

            other = threading.Thread(target=cancel)
            other.start()
            begin.wait()
            try:
                executor.start()
            except Cancelled:
                outcomes.add("cancelled")
                other.join()
                self.assert_not_started(executor)
            else:
                outcomes.add("ready")
                other.join()
                self.assertTrue(executor.running())
                executor.stop()
            self.assert_can_be_started(executor)
        self.assertIn("cancelled", outcomes)

    def test_a_clean_cancel_warns_of_nothing(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            executor = OutputExecutor(UP, "up", probe=lambda executor: executor.cancel())
            self.assert_cancelled(executor.start, executor)


class HouseTests(ExecutorCase):
    def test_it_is_no_name_for_users(self) -> None:
        self.assertNotIn("Cancelled", [*dir(caseexec), *executors.__all__, *errors.__all__])

    def test_it_can_be_pickled(self) -> None:
        self.assertEqual(str(pickle.loads(pickle.dumps(Cancelled("it")))), "it")
