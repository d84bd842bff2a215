"""Stopping, pausing and restarting a command."""

import asyncio
import os
import signal
import socket
import unittest

from caseexec import errors, ports, processes
from caseexec.executors import OutputExecutor, SimpleExecutor, TCPExecutor
from tests.helpers.leaks import NothingRemains, alive, soon
from tests.helpers.programs import CHILD_LEAVES, TCP_SERVER, python


class InterludesCase(NothingRemains):
    def server(self) -> TCPExecutor:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        executor = TCPExecutor(python(TCP_SERVER, port), "127.0.0.1", port)
        self.addCleanup(executor.kill)
        return executor

    def assert_answers(self, executor: TCPExecutor) -> None:
        socket.create_connection((executor.host, executor.port)).close()


class RestartTests(InterludesCase):
    def test_a_restart_is_a_new_process_that_is_ready(self) -> None:
        with self.server() as executor:
            before = executor.pid
            self.assertIs(executor.restart(), executor)
            self.assertNotEqual(executor.pid, before)
            self.assertFalse(alive(before))
            self.assert_answers(executor)

    def test_one_that_has_died_or_was_not_started_is_started(self) -> None:
        executor = self.server()
        executor.restart()
        os.kill(executor.pid, signal.SIGKILL)
        self.assertTrue(soon(executor.has_died))
        executor.restart()
        self.assert_answers(executor)
        executor.kill(wait=False)
        executor.restart()
        self.assert_answers(executor)
        executor.stop()

    def test_one_that_does_not_end_well_is_started_all_the_same(self) -> None:
        program = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
        executor = OutputExecutor(program, "ready", shell=True)
        self.addCleanup(executor.kill)
        executor.start()
        with self.assertRaisesRegex(errors.ProcessFinishedWithError, "exited with status 7 when it was stopped"):
            executor.restart()
        self.assertTrue(executor.running())


class PausedTests(InterludesCase):
    def test_nobody_of_it_runs_in_the_block(self) -> None:
        path = self.path("pid")
        executor = SimpleExecutor(python(CHILD_LEAVES, path)).start()
        self.addCleanup(executor.kill)
        self.assertTrue(soon(lambda: os.path.exists(path)))
        with executor.paused() as same:
            self.assertIs(same, executor)
            self.assertGreaterEqual(len(executor.living()), 2)
            self.assertTrue(all(map(processes.is_stopped, executor.living())))
        self.assertTrue(soon(lambda: not any(map(processes.is_stopped, executor.living()))))

    def test_it_is_ready_afterwards_also_when_the_block_raises(self) -> None:
        for raised in (ZeroDivisionError, KeyboardInterrupt):
            with self.server() as executor:
                with self.assertRaises(raised), executor.paused():
                    raise raised
                self.assert_answers(executor)

    def test_one_that_was_stopped_in_the_block_stays_so(self) -> None:
        executor = self.server().start()
        with executor.paused():
            executor.stop()
        self.assertFalse(executor.running())

    def test_one_that_is_not_started_is_left_alone(self) -> None:
        executor = self.server()
        with executor.paused():
            self.assertFalse(executor.running())

    def test_a_pause_within_a_pause_ends_with_the_outer_one(self) -> None:
        with self.server() as executor:
            with executor.paused():
                with executor.paused():
                    pass
                self.assertTrue(processes.is_stopped(executor.pid))
            self.assert_answers(executor)


class AsynchronousTests(InterludesCase, unittest.IsolatedAsyncioTestCase):
    async def test_one_that_is_not_started_is_left_alone(self) -> None:
        executor = self.server()
        async with executor.astopped():
            pass
        self.assertFalse(executor.running())

    async def test_it_is_started_also_when_the_block_raises(self) -> None:
        with self.server() as executor:
            with self.assertRaises(ZeroDivisionError):
                async with executor.astopped():
                    raise ZeroDivisionError
            self.assert_answers(executor)

    async def test_two_that_are_cancelled_at_once_leave_both_started(self) -> None:
        first, second = self.server().start(), self.server().start()
        tasks = [asyncio.ensure_future(executor.arestart()) for executor in (first, second)]
        for _ in range(3):  # Also one who is cancelled again and again goes on until it is started.
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
        for task in tasks:
            with self.assertRaises(asyncio.CancelledError):
                await task
        for executor in (first, second):
            self.assert_answers(executor)
            executor.stop()
