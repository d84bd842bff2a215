import os
import signal
import stat
import subprocess
import unittest
import warnings
from contextlib import suppress
from unittest import mock

from caseexec import processes, registry
from caseexec.deadline import Deadline
from caseexec.registry import StopPlan, current_run
from tests.helpers.leaks import NothingRemains, alive, quickly, soon
from tests.helpers.programs import IGNORES_TERM, python
from tests.helpers.runs import RunCase


class RunTests(NothingRemains):
    def test_marks_are_the_runs_id_and_a_number(self) -> None:
        first, second = current_run().new_mark(), current_run().new_mark()
        self.assertNotEqual(first, second)
        self.assertEqual({mark.rpartition(".")[0] for mark in (first, second)}, {current_run().id})

    def test_a_directory_is_private_and_removed_with_all_that_is_in_it(self) -> None:
        path = current_run().make_directory()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700)
        os.makedirs(os.path.join(path, "a/b"))
        current_run().remove_directory(path)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(current_run().directories, set())

    def test_a_directory_without_permissions_is_removed_too(self) -> None:
        path = current_run().make_directory()
        os.makedirs(os.path.join(path, "closed/inner"))
        os.chmod(os.path.join(path, "closed"), 0)
        current_run().remove_directory(path)
        self.assertFalse(os.path.exists(path))

    def test_a_directory_that_cannot_be_removed_is_told(self) -> None:
        path = current_run().make_directory()
        with (
            mock.patch.object(registry.run, "remove_tree", return_value=False),
            self.assertWarnsRegex(ResourceWarning, f"{path} could not"),
        ):
            current_run().remove_directory(path)
        os.rmdir(path)

    def test_a_forked_child_has_a_run_of_its_own(self) -> None:
        run, path = current_run(), current_run().make_directory()
        child = os.fork()
        if child == 0:
            run.remove_directory(path)
            run.sweep()
            os._exit(current_run().id == run.id or not os.path.exists(path))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        run.remove_directory(path)


class RunCommandTests(NothingRemains):
    kept_logs = 0

    def run_it(self, command, seconds: float = 10, **plan) -> tuple[int | None, str]:
        return current_run().run_command(command, StopPlan(environment=dict(os.environ), **plan), Deadline(seconds))

    def test_it_tells_status_and_output(self) -> None:
        self.assertEqual(self.run_it(["sh", "-c", "echo out; echo err >&2; exit 3"]), (3, "out\nerr"))

    def test_a_shell_runs_a_string(self) -> None:
        self.assertEqual(self.run_it("echo $0 | tr a-z A-Z", shell=True), (0, "/BIN/SH"))

    def test_it_runs_in_the_directory_of_the_service(self) -> None:
        self.assertEqual(self.run_it(["pwd", "-P"], cwd=self.tmp), (0, os.path.realpath(self.tmp)))

    def test_one_that_takes_too_long_is_killed_with_its_children(self) -> None:
        with quickly(self, 10):
            self.assertEqual(self.run_it("sleep 300 & sleep 300", 0.1, shell=True), (None, ""))

    def test_what_it_leaves_in_the_background_is_ended(self) -> None:
        _, output = self.run_it("sleep 300 & echo $!", shell=True)
        self.assertFalse(alive(int(output)))


class SweepTests(RunCase):
    PROGRAM = """
        import sys
        from caseexec import SimpleExecutor, OutputExecutor
        from caseexec.registry import current_run
        executor = OutputExecutor({command!r}, {banner!r}, stop_timeout=60, stop_command={stop!r}).start()
        directory = current_run().make_directory()
        print(executor.pid, flush=True)
        {then}
    """

    def program(self, then: str, command=("sh", "-c", "echo up; sleep 300"), banner: str = "up", stop=None) -> str:
        return self.write("program.py", self.PROGRAM.format(command=command, banner=banner, stop=stop, then=then))

    def assert_nothing_left(self, output: str) -> None:
        self.assertFalse(alive(int(output.split()[0])), output)
        self.assertEqual(os.listdir(self.run_tmp), [])

    def test_at_exit_everything_is_ended_and_removed(self) -> None:
        for then in ("pass", "sys.exit(3)", "raise KeyboardInterrupt"):
            with self.subTest(then):
                _, output = self.run_python(self.program(then))
                self.assert_nothing_left(output)

    def test_stop_commands_run_at_exit_too(self) -> None:
        self.run_python(self.program("pass", stop=["touch", self.path("stopped")]))
        self.assertTrue(os.path.exists(self.path("stopped")))

    def test_a_forked_child_that_exits_ends_nothing(self) -> None:
        then = """if (child := __import__('os').fork()) == 0: sys.exit(0)
        __import__('os').waitpid(child, 0); print('alive' if executor.running() else 'dead')"""
        _, output = self.run_python(self.program(then))
        self.assertIn("alive", output)
        self.assert_nothing_left(output)

    def test_many_interrupts_at_exit_leave_nothing_either(self) -> None:
        then = f"""[OutputExecutor({IGNORES_TERM!r}, 'deaf').start() for _ in range(3)]
        import atexit; atexit.register(lambda: open('exiting', 'w').close())"""
        process = self.begin(self.program(f"others = {then}", command=IGNORES_TERM, banner="deaf"))
        self.assertTrue(soon(lambda: os.path.exists(self.path("exiting")) or process.poll() is not None, 30))
        mine = processes.table().children(process.pid)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.002)
        process.communicate()
        self.assertTrue(soon(lambda: not any(map(alive, mine)), 2), mine)

    def test_a_second_interrupt_ends_the_politeness(self) -> None:
        then = "import atexit; atexit.register(lambda: open('exiting', 'w').close())"
        process = self.begin(self.program(then, command=IGNORES_TERM, banner="deaf"))
        with quickly(self, 8):
            output = self.interrupt_when(process, "exiting")
        self.assert_nothing_left(output)


class StopPlanTests(unittest.TestCase):
    def test_its_repr_does_not_show_the_environment(self) -> None:
        self.assertNotIn("secret", repr(StopPlan(environment={"PASSWORD": "secret"})))

    def test_by_default_it_terminates_and_then_kills(self) -> None:
        self.assertEqual((StopPlan().stop_signal, StopPlan().kill_signal), (signal.SIGTERM, signal.SIGKILL))


class NoWarningsTests(NothingRemains):
    def test_a_clean_life_warns_of_nothing(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(
                current_run().run_command(python("print(1)"), StopPlan(environment=dict(os.environ)), Deadline(10)),
                (0, "1"),
            )
        self.assertTrue(soon(lambda: subprocess._active == []))
