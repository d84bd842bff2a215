import json
import multiprocessing
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import warnings
from contextlib import suppress
from unittest import mock

from caseexec import SimpleExecutor, processes, registry
from caseexec.deadline import Deadline
from caseexec.errors import DeclarationError, ReaperWarning
from caseexec.registry import StopPlan, current_run, reaping
from caseexec.registry.reaping import Reaper
from tests.helpers.leaks import RUN_ID, NothingRemains, alive, descriptors, on_disk, quickly, soon
from tests.helpers.programs import IGNORES_TERM, SLEEP, python
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
        current_run().remove(path)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(current_run().paths, set())

    def test_a_directory_without_permissions_is_removed_too(self) -> None:
        path = current_run().make_directory()
        os.makedirs(os.path.join(path, "closed/inner"))
        os.chmod(os.path.join(path, "closed"), 0)
        current_run().remove(path)
        self.assertFalse(os.path.exists(path))

    def test_a_directory_that_cannot_be_removed_is_told(self) -> None:
        path = current_run().make_directory()
        with (
            mock.patch.object(registry.run, "remove_tree", return_value=False),
            self.assertWarnsRegex(ResourceWarning, f"{path} could not"),
        ):
            current_run().remove(path)
        os.rmdir(path)

    def test_a_directory_of_any_name_is_told_to_the_reaper(self) -> None:
        for name in (b"\xff", b"a\tb", b"a\nb", b"a*[b"):
            with self.subTest(name), mock.patch.object(tempfile, "tempdir", os.fsdecode(self.named(name))):
                path = current_run().make_directory()
                self.assertIn(os.path.basename(path), current_run().reaper._entries)
                current_run().remove(path)
                self.assertNotIn(os.path.basename(path), current_run().reaper._entries)

    def named(self, name: bytes) -> bytes:
        path = os.path.join(os.fsencode(self.tmp), name)
        os.mkdir(path)
        return path

    def test_a_forked_child_has_a_run_of_its_own(self) -> None:
        run, path = current_run(), current_run().make_directory()
        child = os.fork()
        if child == 0:
            run.remove(path)
            run.sweep()
            os._exit(current_run().id == run.id or not os.path.exists(path))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        run.remove(path)


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

    def test_it_is_killed_when_another_thread_ends_its_time(self) -> None:
        deadline, runs = Deadline(60), threading.Event()
        deadline.watchers.append(lambda: os.path.exists(self.path("runs")) and runs.set())

        def expire() -> None:
            runs.wait(30)
            deadline.expire()

        other = threading.Thread(target=expire)
        other.start()
        plan = StopPlan(environment=dict(os.environ), shell=True)
        with quickly(self, 30):
            command = f": >{self.path('runs')}; sleep 300"
            self.assertEqual(current_run().run_command(command, plan, deadline.within(60)), (None, ""))
        other.join()

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

    POLITE = ["sh", "-c", "trap 'sleep 0.3; echo bye >bye; exit' TERM; echo up; while :; do sleep 0.02; done"]

    def test_a_deaf_one_does_not_use_up_the_time_of_the_others(self) -> None:
        then = f"deaf = OutputExecutor({IGNORES_TERM!r}, 'deaf').start()"
        _, output = self.run_python(self.program(then, command=self.POLITE))
        self.assert_nothing_left(output)
        self.assertTrue(os.path.exists(self.path("bye")))

    def test_one_whose_stop_fails_is_told_and_left_to_the_reaper_and_the_others_end_as_they_want(self) -> None:
        then = f"""other = SimpleExecutor({SLEEP!r}).start()
        print(other.pid)
        other._owned.stop = lambda **_: 1 / 0"""
        _, output = self.run_python(self.program(then, command=self.POLITE))
        self.assertIn("ZeroDivisionError", output)
        self.assertTrue(os.path.exists(self.path("bye")))
        pids = [int(line) for line in output.split()[:2]]
        self.assertTrue(soon(lambda: not any(map(alive, pids)) and not os.listdir(self.run_tmp)), output)

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
        self.assertTrue(soon(lambda: not any(map(alive, mine))), mine)

    def test_a_second_interrupt_ends_the_politeness(self) -> None:
        then = "import atexit; atexit.register(lambda: open('exiting', 'w').close())"
        process = self.begin(self.program(then, command=IGNORES_TERM, banner="deaf"))
        with quickly(self, 8):
            output = self.interrupt_when(process, "exiting")
        self.assert_nothing_left(output)


class ReaperCase(NothingRemains):
    """What a reaper knows is seen by the directories that it removes when it ends."""

    kept_logs = 0
    KEEPER = 0

    def setUp(self) -> None:
        super().setUp()
        self.reaper = self.make()

    def make(self, environment: dict[str, str] | None = None) -> Reaper:
        about = {"moment": processes.table().moment()}
        made = Reaper(RUN_ID, self.KEEPER, "", about, dict(os.environ) if environment is None else environment)
        self.addCleanup(made.close)
        return made

    def tell(self, name: str) -> str:
        """Tell it of a directory."""
        path = self.make_dir(f"caseexec-{name}")
        self.reaper.tell(name, {"paths": [path]})
        return path

    def kill(self) -> int:
        """Kill the reaper; its pid."""
        pid = self.reaper.pid
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    def pause(self) -> int:
        """Stop the reaper as a debugger does; its pid."""
        pid = self.reaper.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        return pid

    def end(self) -> None:
        """End it as the end of the run does, and wait until it has done its work."""
        process = self.reaper._process
        with mock.patch.object(reaping, "_disown"):  # Which may see its end, and then it can't be waited for.
            self.reaper.close()
        self.assertEqual(process.wait(20), 0)

    def warning(self, act) -> str:
        """The text of the one warning that a call leads to."""
        with self.assertWarns(ReaperWarning) as caught:
            act()
        self.assertEqual(len(caught.warnings), 1)
        return str(caught.warning)


class ReaperTests(ReaperCase):
    def test_it_is_started_with_the_first_entry_and_then_stays(self) -> None:
        self.assertIsNone(self.reaper.pid)
        self.tell("a")
        first = self.reaper.pid
        self.tell("b")
        self.assertTrue(alive(first))
        self.assertEqual(self.reaper.pid, first)

    def test_a_run_has_one(self) -> None:
        current_run().reaper.tell("x", {})
        pid = current_run().reaper.pid
        with SimpleExecutor(SLEEP), SimpleExecutor(SLEEP):
            self.assertEqual(current_run().reaper.pid, pid)
        current_run().reaper.forget("x")

    def test_it_does_what_it_was_told_when_the_pipe_ends(self) -> None:
        path = self.tell("a")
        self.end()
        self.assertFalse(os.path.exists(path))

    def test_it_forgets_what_is_no_longer_there(self) -> None:
        kept, gone = self.tell("kept"), self.tell("gone")
        self.reaper.forget("kept")
        self.reaper.forget("never")
        self.end()
        self.assertEqual((os.path.exists(kept), os.path.exists(gone)), (True, False))

    def test_it_is_gone_when_it_is_closed_and_has_nothing_to_do(self) -> None:
        self.tell("a")
        self.reaper.forget("a")
        pid = self.reaper.pid
        self.reaper.close()
        self.assertEqual((self.reaper.pid, processes.table().status(pid)), (None, None))
        self.reaper.close()

    def test_one_that_is_stopped_and_has_nothing_to_do_is_gone_too(self) -> None:
        self.tell("a")
        self.reaper.forget("a")
        pid = self.pause()
        with mock.patch.object(reaping, "_PATIENCE", 0.1):
            self.reaper.close()
        self.assertIsNone(processes.table().status(pid))

    def test_it_can_be_turned_off(self) -> None:
        for value, off in (("0", True), ("1", False), ("", False)):
            with mock.patch.dict(os.environ, {reaping.SWITCH: value}):
                self.assertEqual(reaping.turned_off(), off)

    def test_descriptors_are_not_kept(self) -> None:
        before = descriptors()
        self.tell("a")
        self.assertEqual(len(descriptors() - before), 1)
        self.reaper.close_in_child()  # As if this were a forked child.
        self.assertEqual(descriptors(), before)
        self.assertIsNone(self.reaper.pid)


class LogLimitTests(NothingRemains):
    kept_logs = 0

    def limit(self, value: str | None) -> int:
        with mock.patch.dict(os.environ):
            os.environ.pop("CASEEXEC_LOG_LIMIT", None)
            if value is not None:
                os.environ["CASEEXEC_LOG_LIMIT"] = value
            return reaping.log_limit()

    def test_it_is_64_mebibytes_if_the_user_wants_no_other(self) -> None:
        expected = ((None, 64 << 20), ("", 64 << 20), ("0", 0), ("131072", 131072), ("10000000000", 10**10))
        for value, limit in expected:
            with self.subTest(value):
                self.assertEqual(self.limit(value), limit)

    def test_what_is_no_number_of_bytes_or_too_small_for_the_end_of_a_log_is_told(self) -> None:
        for value in ("64M", "-1", "1.5", " 131072", "\xb2", "64", "131071"):
            with self.subTest(value), self.assertRaises(DeclarationError) as caught:
                self.limit(value)
            self.assertEqual(
                str(caught.exception),
                f"CASEEXEC_LOG_LIMIT: {value!r} is not what a service's log may take on disk: write a number of bytes, "
                "at least 131072 (default: 67108864), or 0 for no limit",
            )

    def test_a_service_is_not_started_with_such_a_value(self) -> None:
        service = SimpleExecutor(SLEEP, stop_command=["true"])
        with mock.patch.dict(os.environ, CASEEXEC_LOG_LIMIT="64M"):
            with self.assertRaisesRegex(DeclarationError, "^CASEEXEC_LOG_LIMIT: '64M' is not what") as caught:
                service.start()
            self.assertEqual(caught.exception.__notes__, ["SimpleExecutor('sleep 300') could not be started"])
            self.assertFalse(service.running())
        with service:
            self.assertTrue(service.running())


class DeafReaperTests(ReaperCase):
    def test_what_is_sent_to_everybody_while_it_begins_does_not_end_it(self) -> None:
        path = self.tell("a")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(self.reaper.pid, number)
        self.end()
        self.assertFalse(os.path.exists(path))

    def test_we_hear_signals_as_before_when_it_has_begun(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.tell("a")
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before)
        with mock.patch.object(subprocess, "Popen", side_effect=OSError("no")):
            self.kill()
            self.warning(lambda: self.tell("b"))
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before)


class DeadReaperTests(ReaperCase):
    def test_one_that_was_killed_is_told_and_the_next_one_knows_everything(self) -> None:
        first = self.tell("a")
        dead = self.kill()
        text = self.warning(lambda: self.tell("b"))
        self.assertEqual(text, f"caseexec's reaper (pid {dead}) was killed by SIGKILL. Another one is started now")
        self.assertNotEqual(self.reaper.pid, dead)
        self.assertIsNone(processes.table().status(dead), "it is waited for")
        self.end()
        self.assertFalse(os.path.exists(first) or os.path.exists(self.path("caseexec-b")))

    def test_so_it_does_of_the_logs(self) -> None:
        log = self.path("log")
        with open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(b"x" * 1_000_000)
        self.reaper.tell("a", {}, 2_000_000, [log])
        self.kill()
        with open(log, "ab") as file:
            file.write(b"x" * 2_000_000)
        self.warning(lambda: self.tell("b"))
        self.assertTrue(soon(lambda: on_disk(log) <= 2_000_000))
        self.end()

    def test_one_that_was_killed_is_told_at_the_end(self) -> None:
        self.tell("a")
        dead = self.kill()
        text = self.warning(self.reaper.close)
        self.assertEqual(text, f"caseexec's reaper (pid {dead}) was killed by SIGKILL; from then on a run that is killed "
                         "(SIGTERM, SIGKILL, os._exit) leaves its services behind")  # fmt: skip

    def test_one_whose_end_of_the_pipe_is_held_by_a_fork_is_told_all_the_same(self) -> None:
        self.tell("a")
        held = os.open(f"/proc/{self.reaper.pid}/fd/0", os.O_RDONLY)
        self.addCleanup(os.close, held)
        self.kill()
        self.assertIn("killed by SIGKILL", self.warning(lambda: self.tell("b")))

    def test_to_forget_something_starts_no_other(self) -> None:
        self.tell("a")
        dead = self.kill()
        self.reaper.forget("a")
        self.assertEqual(self.reaper.pid, dead)
        self.warning(self.reaper.close)

    def test_a_warning_that_is_an_error_comes_when_the_next_one_is_there(self) -> None:
        first = self.tell("a")
        self.kill()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with self.assertRaises(ReaperWarning):
                self.tell("b")
            self.tell("c")
        self.end()
        self.assertFalse(os.path.exists(first) or os.path.exists(self.path("caseexec-b")))

    def test_a_write_to_a_dead_one_is_no_death_of_ours(self) -> None:
        self.addCleanup(signal.signal, signal.SIGPIPE, signal.signal(signal.SIGPIPE, signal.SIG_DFL))
        self.tell("a")
        self.kill()
        self.reaper.forget("a")
        self.warning(lambda: self.tell("b"))

    def test_one_that_is_stopped_is_replaced_when_its_pipe_is_full(self) -> None:
        path = self.tell("a")
        stopped, spawn = self.pause(), self.reaper._spawn

        def patiently() -> subprocess.Popen[bytes]:
            reaping._PATIENCE = 60  # With the new one, which has to begin first.
            return spawn()

        with mock.patch.object(reaping, "_PATIENCE", 0.1), mock.patch.object(self.reaper, "_spawn", patiently):
            text = self.warning(lambda: self.reaper.tell("long", {"x": "y" * 300_000}))
        self.assertEqual(text, f"caseexec's reaper (pid {stopped}) no longer answers. Another one is started now")
        # It must not come to life later, and take the end of its pipe for the end of the run.
        self.assertIsNone(processes.table().status(stopped))
        self.assertTrue(os.path.exists(path))
        self.end()
        self.assertFalse(os.path.exists(path))

    def test_so_it_is_when_it_cannot_be_told_to_forget(self) -> None:
        kept = self.tell("kept")
        stopped = self.pause()
        self.reaper.tell("long", {"x": "y" * 30_000})
        with mock.patch.object(reaping, "_PATIENCE", 0.1):
            while self.reaper.pid == stopped:
                # As much as there is room for: half a line would spoil the next one.
                with warnings.catch_warnings(record=True):
                    warnings.simplefilter("always")
                    self.reaper.tell("long", {"x": "y" * 30_000})
            stopped = self.pause()
            os.set_blocking(self.reaper._pipe, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(self.reaper._pipe, b"x\t\n")
            text = self.warning(lambda: self.reaper.forget("kept"))
        self.assertEqual(text, f"caseexec's reaper (pid {stopped}) no longer answers. Another one is started now")
        self.reaper.forget("long")
        self.reaper.close()
        self.assertTrue(os.path.exists(kept))

    def test_one_that_cannot_be_started_is_told_each_time(self) -> None:
        with mock.patch.object(sys, "executable", "/no/such/python"):
            for name in ("a", "b"):
                self.assertEqual(
                    self.warning(lambda name=name: self.tell(name)),
                    "caseexec's reaper could not be started: [Errno 2] No such file or directory: '/no/such/python'. "
                    "Without it a run that is killed (SIGTERM, SIGKILL, os._exit) leaves its services behind. "
                    "CASEEXEC_REAPER=0 does without one",
                )
                self.assertIsNone(self.reaper.pid)
        first = self.path("caseexec-a")
        self.tell("c")
        self.end()
        self.assertFalse(os.path.exists(first), "what it was not told then, the next one knows")

    def test_a_program_that_is_no_python_is_told_as_soon_as_it_is_noticed(self) -> None:
        with mock.patch.object(sys, "executable", "/bin/false"):
            self.tell("a")
            self.assertTrue(soon(lambda: self.reaper._process.poll() is not None))
            self.assertRegex(
                self.warning(lambda: self.tell("b")),
                r"reaper \(pid \d+, /bin/false -I -S \S+/reaper\.py\) exited with status 1\. Another one is started now",
            )
            self.assertTrue(soon(lambda: self.reaper._process.poll() is not None))
        self.warning(self.reaper.close)

    def test_one_that_does_not_listen_in_time_is_told_and_gets_no_more(self) -> None:
        with mock.patch.object(reaping, "_PATIENCE", 0.05):
            with mock.patch.object(reaping, "_program", return_value=["sh", "-c", "exec sleep 300"]):
                text = self.warning(lambda: self.reaper.tell("a", {"paths": ["x" * 100_000]}))
            self.assertIn("could not be started: it did not listen within 0.05 seconds. Without it", text)
            self.assertTrue(soon(lambda: self.reaper._process.poll() is not None))
        self.reaper.forget("a")
        self.warning(lambda: self.tell("b"))
        self.end()

    def test_without_python_of_our_own_there_is_one_beside_it(self) -> None:
        with mock.patch.object(sys, "executable", ""):
            path = self.tell("a")
        self.end()
        self.assertFalse(os.path.exists(path))


class OrphanTests(ReaperCase):
    """The process whose worker the run is has ended."""

    def make(self, environment: dict[str, str] | None = None) -> Reaper:
        self.keeper = subprocess.Popen(SLEEP)
        self.addCleanup(self.keeper.wait)
        self.addCleanup(self.keeper.kill)
        with mock.patch.object(self, "KEEPER", self.keeper.pid):
            return super().make(environment)

    def end_keeper(self) -> int:
        """End it, and wait for what the reaper does then; the reaper's pid."""
        self.keeper.kill()
        self.keeper.wait()
        os.waitid(os.P_PID, self.reaper.pid, os.WEXITED | os.WNOWAIT)
        return self.reaper.pid

    def test_a_reaper_that_ended_for_that_reason_is_no_matter_for_a_warning(self) -> None:
        path = self.tell("a")
        self.end_keeper()
        self.assertFalse(os.path.exists(path))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.reaper.close()

    def test_the_next_service_is_told_why_it_will_be_ended(self) -> None:
        self.tell("a")
        reaper = self.end_keeper()
        self.assertEqual(
            self.warning(lambda: self.tell("b")),
            f"caseexec's reaper (pid {reaper}) has ended this run's services, as the process whose worker it is has "
            "ended. Another one is started now",
        )
        self.end_keeper()


class CommandLineTests(unittest.TestCase):
    def test_of_a_run_of_its_own_it_is_that_of_its_process(self) -> None:
        self.assertEqual(reaping.command_line(0), shlex.join([sys.executable, *sys.orig_argv[1:]]))

    def test_of_a_worker_it_is_its_keepers_and_its_own_name(self) -> None:
        keeper = subprocess.Popen(["sleep", "300", "1"])
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        self.assertTrue(soon(lambda: processes.table().command(keeper.pid) == keeper.args))
        with mock.patch.dict(os.environ, PYTEST_XDIST_WORKER="gw3"):
            self.assertEqual(reaping.command_line(keeper.pid), "sleep 300 1 (worker gw3)")
        with mock.patch.dict(os.environ):
            os.environ.pop("PYTEST_XDIST_WORKER", None)
            with multiprocessing.get_context("fork").Pool(1) as pool:
                self.assertRegex(
                    pool.apply(reaping.command_line, [keeper.pid]), r"^sleep 300 1 \(worker ForkPoolWorker-\d+\)$"
                )

    def test_whoever_is_nobodys_worker_has_no_such_name(self) -> None:
        with mock.patch.dict(os.environ, PYTEST_XDIST_WORKER="gw3"):  # As all that a worker has started inherit it.
            self.assertEqual((reaping.worker(0), reaping.worker(1)), ("", "gw3"))


class ForkedReaperTests(NothingRemains):
    def test_a_forked_child_closes_its_copy_of_the_pipe_and_starts_its_own(self) -> None:
        reaper = current_run().reaper
        self.assertIsNotNone(reaper.pid)
        child = os.fork()
        if child == 0:
            try:
                with suppress(OSError):
                    os.fstat(reaper._pipe or -1)
                    os._exit(1)
                with SimpleExecutor(SLEEP):
                    other = current_run().reaper.pid
                    os._exit(2) if other in (None, os.getppid()) or current_run().reaper is reaper else None
                current_run().sweep()
                os._exit(4 if alive(other) else 0)
            finally:
                os._exit(3)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(alive(reaper.pid))

    def test_the_pipe_ends_although_a_forked_child_lives(self) -> None:
        read = current_run().reaper._pipe
        child = os.fork()
        if child == 0:
            try:
                os.fstat(read)
            except OSError:
                time.sleep(300)
            os._exit(1)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        pipe = os.readlink(f"/proc/self/fd/{read}")
        opened = f"/proc/{child}/fd"
        self.assertTrue(soon(lambda: not any(pipe in name for name in descriptors(opened))))
        self.assertTrue(alive(child))


class ReaperOfARunTests(RunCase):
    def run_it(self, program: str) -> str:
        source = (
            "import os, sys, time\nfrom caseexec import SimpleExecutor\nfrom caseexec.registry import current_run\n"
        )
        code, output = self.run_python(self.write("program.py", source + textwrap.dedent(program)))
        self.assertEqual(code, 0, output)
        return output

    def test_there_is_none_before_the_first_service_and_none_after_the_exit(self) -> None:
        output = self.run_it("""
            run = current_run()
            print(run.reaper.pid)
            executor = SimpleExecutor(["sleep", "300"]).start()
            print(run.reaper.pid)
        """)
        before, pid = output.split()
        self.assertEqual(before, "None")
        self.assertFalse(alive(int(pid)))
        self.assertEqual(os.listdir(self.run_tmp), [])

    def test_a_worker_whose_parent_was_killed_loses_its_services_while_it_goes_on(self) -> None:
        program = self.write("pool.py", """
            import multiprocessing, os, sys, time
            def work(_):
                from caseexec import SimpleExecutor
                executor = SimpleExecutor(["sleep", "300"]).start()
                print(os.getpid(), executor.pid, flush=True)
                time.sleep(300)
            if __name__ == "__main__":
                with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
                    pool.map(work, [1])
        """)  # fmt: skip
        for method in ("fork", "spawn"):
            with self.subTest(method):
                parent = self.begin(program, method)
                worker, service = map(int, self.line(parent).split())
                self.addCleanup(os.kill, worker, signal.SIGKILL)
                parent.kill()
                self.assertTrue(soon(lambda service=service: not alive(service)))
                self.assertTrue(alive(worker))

    def test_there_is_none_when_it_is_turned_off(self) -> None:
        self.environment[reaping.SWITCH] = "0"
        output = self.run_it("""
            with SimpleExecutor(["sleep", "300"]):
                current_run().remove(current_run().make_directory())
                print(current_run().reaper.pid)
        """)
        self.assertEqual(output, "None\n")

    @unittest.skipUnless(sys.platform == "linux", "another system does not show it")
    def test_it_has_no_terminal_no_descriptor_and_no_directory_of_ours(self) -> None:
        output = self.run_it("""
            import contextlib, json
            os.set_inheritable(os.open("/", os.O_RDONLY), True)
            with SimpleExecutor(["sleep", "300"]):
                reaper = f"/proc/{current_run().reaper.pid}"
                def descriptors():
                    return sorted(os.readlink(f"{reaper}/fd/{name}").partition(":")[0] for name in os.listdir(f"{reaper}/fd"))
                names, ours, end = [], ["/dev/null", "/dev/null", "anon_inode", "pipe"], time.monotonic() + 20
                while (names != ours or os.readlink(f"{reaper}/cwd") != "/") and time.monotonic() < end:
                    time.sleep(0.01)
                    with contextlib.suppress(OSError):  # One may be closed meanwhile.
                        names = descriptors()
                with open(f"{reaper}/stat") as file:
                    stat = file.read().rpartition(")")[2].split()
                print(json.dumps([current_run().reaper.pid, names, stat[2], stat[3], stat[4]]))
        """)
        pid, names, group, session, terminal = json.loads(output)
        self.assertEqual(names, ["/dev/null", "/dev/null", "anon_inode", "pipe"], "the last but one wakes it")
        self.assertEqual((int(group), int(session), int(terminal)), (pid, pid, 0))

    def test_it_ends_the_services_of_a_run_that_was_killed(self) -> None:
        program = """
            executor = SimpleExecutor([sys.executable, "-c", {deaf!r}]).start()
            while "deaf" not in executor.tail():
                time.sleep(0.01)
            print(executor.pid, current_run().reaper.pid, flush=True)
            {end}
        """
        deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
        for end in ("os._exit(0)", "os.execvp('true', ['true'])"):
            with self.subTest(end):
                source = "import os, sys, time\nfrom caseexec import SimpleExecutor\nfrom caseexec.registry import current_run\n"
                path = self.write("program.py", source + textwrap.dedent(program.format(deaf=deaf, end=end)))
                _, output = self.run_python(path)
                service, reaper = map(int, output.split())
                self.assertTrue(soon(lambda service=service: not alive(service), 5))
                self.assertTrue(soon(lambda reaper=reaper: not alive(reaper), 5))
                self.assertEqual(os.listdir(self.run_tmp), [])


class NoWarningsTests(NothingRemains):
    def test_a_clean_life_warns_of_nothing(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(
                current_run().run_command(python("print(1)"), StopPlan(environment=dict(os.environ)), Deadline(10)),
                (0, "1"),
            )
        self.assertTrue(soon(lambda: subprocess._active == []))
