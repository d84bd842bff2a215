import contextlib
import errno
import gc
import io
import os
import pathlib
import pickle
import re
import signal
import socket
import subprocess
import unittest
import warnings
from collections.abc import Callable, Iterator
from unittest import mock

from caseexec import errors, executors, group, ports, probes, processes, progress, registry, supervisor
from caseexec.cgroup import Cgroup
from caseexec.deadline import Deadline
from caseexec.errors import LeakedProcessWarning
from caseexec.executors import (
    CommandExecutor,
    Declared,
    Executor,
    HTTPExecutor,
    OutputExecutor,
    PidExecutor,
    SimpleExecutor,
    TCPExecutor,
    UnixSocketExecutor,
)
from caseexec.probes import pidfile
from caseexec.registry import current_run
from caseexec.service import OutputService
from tests.helpers.leaks import NothingRemains, alive, clock_is_after, quickly, soon
from tests.helpers.programs import (
    ACCEPTS_BUT_NEVER_ANSWERS,
    DIES_BY_SEGV,
    DOUBLE_FORKS,
    EXIT_3,
    EXIT_TRUE,
    HTTP_SERVER,
    IGNORES_TERM,
    SLEEP,
    TCP_DAEMON,
    TCP_SERVER,
    UNIX_SERVER,
    VANISHES,
    python,
)
from tests.helpers.terminals import Terminal


class ExecutorCase(NothingRemains):
    def port(self) -> int:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        return port

    def tcp(self, source: str = TCP_SERVER, *arguments: object, **options) -> TCPExecutor:
        port = self.port()
        executor = TCPExecutor(python(source, port, *arguments), "127.0.0.1", port, **options)
        self.addCleanup(executor.kill)
        return executor

    def look_when(self, executor: SimpleExecutor, condition: Callable[[], object]) -> None:
        """Have a start look for the first time only when something is so, however long that takes."""
        check = executor.check_subprocess
        executor.check_subprocess = lambda: soon(condition, 60) and check()

    def assert_refused(self, port: int) -> None:
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()


class StartAndStopTests(ExecutorCase):
    kept_logs = 0

    def test_a_command_runs_from_start_to_stop(self) -> None:
        executor = SimpleExecutor(SLEEP)
        self.assertFalse(executor.running())
        self.assertIs(executor.start(), executor)
        pid = executor.pid
        self.assertTrue(executor.running() and alive(pid))
        self.assertIs(executor.stop(), executor)
        self.assertFalse(executor.running() or alive(pid))
        self.assertIsNone(executor.process)

    def test_it_runs_for_the_time_of_a_with_block(self) -> None:
        with SimpleExecutor(SLEEP) as executor:
            self.assertTrue(executor.running())
        self.assertFalse(executor.running())

    def test_a_string_is_split_and_a_list_taken_as_it_is(self) -> None:
        self.assertEqual(SimpleExecutor("echo 'a b' c").command_parts, ["echo", "a b", "c"])
        self.assertEqual(SimpleExecutor(["echo", "a b"]).command, "echo 'a b'")

    def test_starting_twice_starts_once(self) -> None:
        with SimpleExecutor(SLEEP) as executor:
            pid = executor.pid
            self.assertEqual(executor.start().pid, pid)

    def test_one_that_has_ended_can_be_started_again(self) -> None:
        with SimpleExecutor(EXIT_TRUE) as executor:
            pid = executor.pid
            self.assertTrue(soon(lambda: not executor.running()))
            self.assertNotEqual(executor.start().pid, pid)

    def test_stop_and_kill_of_one_that_is_not_started_do_nothing(self) -> None:
        executor = SimpleExecutor(SLEEP)
        self.assertIs(executor.stop(), executor)
        self.assertIs(executor.kill(), executor)

    def test_one_whose_command_was_killed_is_not_running_though_its_children_live(self) -> None:
        with SimpleExecutor("sleep 300 & sleep 300; true", shell=True, expected_returncode=-9) as executor:
            self.assertTrue(soon(lambda: len(executor.living()) == 3))
            os.kill(executor.pid, signal.SIGKILL)
            self.assertTrue(soon(lambda: not executor.running()))
            self.assertEqual(len(executor.living()), 2)

    def test_a_shell_dies_with_all_its_children(self) -> None:
        with SimpleExecutor("sleep 300 & sleep 300 & wait", shell=True) as executor:
            self.assertTrue(soon(lambda: len(executor.living()) == 3))
            family = executor.living()
        self.assertFalse(any(map(alive, family)))

    def test_kill_ends_what_is_deaf_to_the_stop_signal(self) -> None:
        with OutputExecutor(IGNORES_TERM, "deaf") as executor:
            pid = executor.pid
            executor.kill()
            self.assertFalse(alive(pid))

    def test_kill_without_waiting_only_sends_the_signal(self) -> None:
        with SimpleExecutor(SLEEP) as executor:
            pid = executor.pid
            executor.kill(wait=False)
            self.assertFalse(executor.running())
            self.assertTrue(soon(lambda: not alive(pid)))
            self.assertTrue(executor.start().running())
            self.assertNotEqual(executor.pid, pid)

    def test_kill_can_send_another_signal(self) -> None:
        executor = SimpleExecutor(SLEEP).start()
        # One that nobody inherits as ignored, as a job in a shell's background does SIGINT and SIGQUIT.
        executor.kill(sig=signal.SIGUSR1)
        self.assertEqual(executor._facts().returncode, -signal.SIGUSR1)

    def test_it_gets_its_directory_environment_and_stdin(self) -> None:
        program = python("import os, sys; print(os.getcwd(), os.environ['COLOUR'], sys.stdin.readline())")
        with SimpleExecutor(program, cwd=self.tmp, envvars={"COLOUR": "red"}) as executor:
            executor.process.stdin.write("a line\n")
            executor.process.stdin.flush()
            self.assertEqual(executor.output().read().split(), [os.path.realpath(self.tmp), "red", "a", "line"])

    def test_further_arguments_reach_popen(self) -> None:
        with SimpleExecutor(python("import os; print(os.umask(0))"), popen_kwargs={"umask": 0o27}) as executor:
            self.assertEqual(executor.output().read(), f"{0o27}\n")

    def test_the_environment_of_this_process_is_not_touched(self) -> None:
        before = dict(os.environ)
        with SimpleExecutor(SLEEP, envvars={"COLOUR": "red"}) as executor:
            self.assertEqual(executor.envvars["COLOUR"], "red")
            # What a client is started with must not make it look like a part of the service.
            self.assertNotIn("CASEEXEC_MARK", executor.envvars)
        self.assertEqual(dict(os.environ), before)

    def test_a_stop_after_one_that_was_interrupted_has_nothing_to_complain_of(self) -> None:
        executor = OutputExecutor(IGNORES_TERM, "deaf").start()
        with (
            mock.patch.object(executor._owned.group, "_ask", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            executor.stop()
        self.assertFalse(executor.running())
        log = executor.log_path
        executor.stop()
        self.assertFalse(os.path.exists(log))

    def test_its_repr_is_a_diagnosis(self) -> None:
        executor = SimpleExecutor(SLEEP)
        self.assertEqual(repr(executor), "<SimpleExecutor 'sleep 300': not started>")
        executor.start()
        self.assertEqual(repr(executor), f"<SimpleExecutor 'sleep 300': running, pid {executor.pid}>")
        executor.stop()
        self.assertEqual(repr(executor), "<SimpleExecutor 'sleep 300': was killed by SIGTERM>")


class OutputTests(ExecutorCase):
    def test_both_streams_can_be_captured_together(self) -> None:
        program = python("import sys; print('out'); print('err', file=sys.stderr)")
        with SimpleExecutor(program, stderr=subprocess.STDOUT) as executor:
            self.assertEqual(executor.output().read(), "out\nerr\n")
            self.assertIsNone(executor.err_output())
            self.assertEqual(executor.tail(), "out\nerr")

    def test_they_are_captured_apart(self) -> None:
        program = python("import sys; print('out'); print('err', file=sys.stderr)")
        with SimpleExecutor(program) as executor:
            self.assertEqual(executor.output().read(), "out\n")
            self.assertEqual(executor.err_output().read(), "err\n")
            self.assertEqual(executor.tail(), "[stdout]\nout\n[stderr]\nerr")

    def test_the_output_of_an_output_executor_begins_behind_its_banner(self) -> None:
        # In one piece: of a line that is not complete yet, the end is not skipped.
        with OutputExecutor(python(r"print('pre\nthe banner is up\npost')"), "banner") as executor:
            self.assertEqual(executor.output().read(), "post\n")

    def test_a_file_of_ones_own_is_written_to(self) -> None:
        with open(self.path("mine"), "w+") as file:
            with SimpleExecutor(["echo", "hello"], stdout=file, stderr=None) as executor:
                self.assertTrue(soon(lambda: not executor.running()))
                self.assertIsNone(executor.output())
                self.assertIsNone(executor.log_path)
            file.seek(0)
            self.assertEqual(file.read(), "hello\n")

    def test_the_log_goes_with_the_stop_and_its_tail_stays(self) -> None:
        with SimpleExecutor(["echo", "hello"]) as executor:
            executor.output().read()
            path = executor.log_path
            self.assertTrue(os.path.exists(path))
        self.assertFalse(os.path.exists(path))
        self.assertEqual(executor.tail(), "hello")


class EndTests(ExecutorCase):
    def ended(self, status: str, **options) -> SimpleExecutor:
        """An executor whose command ends with the given statement when it gets SIGTERM."""
        program = python(f"""
            import os, signal
            signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
            print('ready')
            signal.sigwait({{signal.SIGTERM}})
            {status}
        """)
        return OutputExecutor(program, "ready", **options).start()

    def test_status_0_the_signal_and_128_plus_the_signal_count_as_stopped(self) -> None:
        for status in ("os._exit(0)", "os._exit(128 + 15)", "os.kill(os.getpid(), 9)"):
            with self.subTest(status):
                executor = self.ended(status)
                if "kill" in status:
                    with self.assertRaises(errors.ProcessFinishedWithError):
                        executor.stop()
                else:
                    executor.stop()
        SimpleExecutor(SLEEP, stop_signal=signal.SIGUSR1).start().stop()

    def test_another_status_is_an_error_and_keeps_the_log(self) -> None:
        executor = self.ended("os._exit(3)")
        with self.assertRaisesRegex(
            errors.ProcessFinishedWithError, "exited with status 3 when it was stopped"
        ) as caught:
            executor.stop()
        self.assertEqual(caught.exception.exit_code, 3)
        self.assertIn("    ready", str(caught.exception))
        with open(caught.exception.facts.log_path) as log:
            self.assertEqual(log.read(), "ready\n")
        self.assertFalse(executor.running())

    def test_the_expected_status_is_right(self) -> None:
        self.ended("os._exit(3)", expected_returncode=3).stop()
        self.ended("os._exit(3)").stop(expected_returncode=3)
        self.ended("os._exit(0)", expected_returncode=3).stop()
        with self.assertRaises(errors.ProcessFinishedWithError):
            SimpleExecutor(SLEEP, expected_returncode=3).start().stop()

    def test_a_command_that_had_crashed_is_an_error_at_the_stop(self) -> None:
        executor = SimpleExecutor(DIES_BY_SEGV).start()
        executor.output().read()
        with self.assertRaisesRegex(
            errors.ProcessFinishedWithError, "had ended by itself before it was stopped: it was killed by SIGSEGV"
        ):
            executor.stop()

    def test_one_that_is_deaf_is_killed_with_a_warning_that_names_the_knob(self) -> None:
        executor = OutputExecutor(IGNORES_TERM, "deaf", stop_timeout=0.2).start()
        pid = executor.pid
        with self.assertWarnsRegex(
            errors.ForcedKillWarning, rf"within 0.2 seconds of SIGTERM.*pid {pid}.*stop_timeout"
        ):
            executor.stop()
        self.assertFalse(alive(pid))

    def test_where_warnings_are_errors_it_is_killed_all_the_same(self) -> None:
        executor = OutputExecutor(IGNORES_TERM, "deaf", stop_timeout=0.1).start()
        pid = executor.pid
        with warnings.catch_warnings(), self.assertRaises(errors.ForcedKillWarning):
            warnings.simplefilter("error")
            executor.stop()
        self.assertFalse(alive(pid) or executor.running())

    def test_the_stop_command_runs_first(self) -> None:
        stop = ["sh", "-c", f"echo $COLOUR >{self.path('ran')}"]
        with SimpleExecutor(SLEEP, stop_command=stop, envvars={"COLOUR": "red"}):
            pass
        with open(self.path("ran")) as file:
            self.assertEqual(file.read(), "red\n")

    def test_it_is_started_and_stopped_where_the_working_directory_was_removed(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.make_dir("gone"))
        os.rmdir(self.path("gone"))
        with SimpleExecutor(SLEEP, stop_command=["touch", self.path("stopped")]):
            pass
        self.assertTrue(os.path.exists(self.path("stopped")))

    def test_all_that_popen_takes_can_be_given_beside_it(self) -> None:
        stop = [b"touch", pathlib.Path(self.path("stopped"))]
        environment = {b"COLOUR": b"red", "HOME": pathlib.Path("/")}
        with SimpleExecutor(SLEEP, cwd=os.fsencode(self.tmp), envvars=environment, stop_command=stop):
            pass
        self.assertTrue(os.path.exists(self.path("stopped")))

    def test_with_a_stop_command_any_status_is_right(self) -> None:
        with SimpleExecutor(SLEEP) as executor:
            executor._plan = executors.simple.registry.StopPlan(command=["kill", "-9", str(executor.pid)])
            executor._owned.plan = executor._plan

    def test_a_stop_command_that_fails_is_told_and_the_signal_follows(self) -> None:
        executor = SimpleExecutor(SLEEP, stop_command="sh -c 'echo no way; exit 7'").start()
        with self.assertWarnsRegex(RuntimeWarning, r"stop command .* failed \(7\): no way; the stop signal followed"):
            executor.stop()
        missing = SimpleExecutor(SLEEP, stop_command="/no/such/program").start()
        with self.assertWarnsRegex(RuntimeWarning, "No such file"):
            missing.stop()
        self.assertFalse(missing.running())

    def test_a_stop_command_that_hangs_gets_the_time_of_the_stop(self) -> None:
        executor = SimpleExecutor(SLEEP, stop_command="sleep 300", stop_timeout=0.2).start()
        with quickly(self, 10), self.assertWarnsRegex(RuntimeWarning, "took too long"):
            executor.stop()


class ScaleTests(ExecutorCase):
    """With all timeouts multiplied."""

    def scale(self, number: str) -> None:
        patch = mock.patch.dict(os.environ, CASEEXEC_TIMEOUT_SCALE=number)
        patch.start()
        self.addCleanup(patch.stop)

    def given_to_stop(self) -> mock.MagicMock:
        """Where the seconds go that a group is given to end."""
        patch = mock.patch.object(registry.owned, "Deadline", side_effect=Deadline)
        self.addCleanup(patch.stop)
        return patch.start()

    def test_a_start_has_more_time_and_its_error_says_how_much_and_why(self) -> None:
        self.scale("3")
        executor = TCPExecutor(SLEEP, "127.0.0.1", self.port(), timeout=0.1, name="it")
        with self.assertRaises(errors.TimeoutExpired) as caught:
            executor.start()
        error = caught.exception
        self.assertGreaterEqual(error.facts.waited, 0.3)
        self.assertEqual((error.timeout, error.facts.scale), (0.1 * 3, 3))
        self.assertEqual(
            str(error).splitlines()[:2],
            [
                "it timed out after 0.3 seconds (0.1 x CASEEXEC_TIMEOUT_SCALE=3): it was not ready",
                "  A slow machine? Raise its timeout, or all timeouts with CASEEXEC_TIMEOUT_SCALE.",
            ],
        )
        self.assertEqual(str(pickle.loads(pickle.dumps(error))), str(error))

    def test_the_defaults_are_scaled_too(self) -> None:
        self.scale("0.5")
        executor = SimpleExecutor(SLEEP)
        self.assertEqual((executor._timeout, executor._plan.timeout), (15, 5))

    def test_a_stop_has_more_time_and_its_warning_says_so(self) -> None:
        self.scale("3")
        executor = OutputExecutor(IGNORES_TERM, "deaf", stop_timeout=0.1, name="it").start()
        pid, given = executor.pid, self.given_to_stop()
        with self.assertWarns(errors.ForcedKillWarning) as caught:
            executor.stop()
        given.assert_called_once_with(0.1 * 3)
        self.assertEqual(
            str(caught.warning).partition("; command")[0],
            f"it did not end within 0.3 seconds (0.1 x CASEEXEC_TIMEOUT_SCALE=3) of SIGTERM and was killed (pid {pid}",
        )

    def test_so_it_has_with_a_stop_command(self) -> None:
        self.scale("3")
        executor = SimpleExecutor(SLEEP, stop_command="sleep 300", stop_timeout=0.1).start()
        given = self.given_to_stop()
        with self.assertWarnsRegex(RuntimeWarning, "took too long"):
            executor.stop()
        given.assert_called_once_with(0.1 * 3)

    def test_a_start_that_failed_has_more_time_to_end(self) -> None:
        given = self.given_to_stop()
        for number, seconds in (("3", 3), ("0.1", 0.1)):
            self.scale(number)
            given.reset_mock()
            with self.assertRaises(errors.TimeoutExpired):
                SimpleExecutor(SLEEP, timeout=0.01).start().wait_for(lambda: False)
            given.assert_called_once_with(seconds)

    def test_with_zero_nothing_has_a_limit(self) -> None:
        self.scale("0")
        given = self.given_to_stop()
        executor = SimpleExecutor(SLEEP, timeout=0.05, stop_timeout=0.05, stop_command="sleep 0.2").start()
        asked = iter([False] * 100 + [True])
        executor.wait_for(lambda: next(asked))
        self.assertTrue(executor.check_timeout())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            executor.stop()
        given.assert_called_once_with(None)
        given.reset_mock()
        with self.assertRaises(errors.ProcessExitedWithError):
            self.tcp("raise SystemExit(3)").start()
        given.assert_called_once_with(None)

    def test_what_is_no_number_is_told_when_an_executor_is_made(self) -> None:
        self.scale("slow")
        with self.assertRaisesRegex(errors.DeclarationError, "^CASEEXEC_TIMEOUT_SCALE: 'slow' is nothing to multiply"):
            SimpleExecutor(SLEEP)

    def test_the_time_at_exit_is_not_scaled(self) -> None:
        given = self.given_to_stop()
        for number, most in (("100", 5), ("0", 5), ("0.001", 0.01)):
            with self.subTest(number):
                self.scale(number)
                executor = SimpleExecutor(SLEEP).start()
                current_run()._sweep(Deadline(5))
                self.assertFalse(executor.running())
                (seconds,) = given.call_args.args
                self.assertTrue(0 < seconds <= most, seconds)


class ProgressTests(ExecutorCase):
    """What is told on stderr while it takes long; here it does so at once."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(progress, "_PATIENCE", 0.02)
        patch.start()
        self.addCleanup(patch.stop)
        self.stderr = io.StringIO()
        self.enterContext(contextlib.redirect_stderr(self.stderr))

    def end_when_told(self) -> None:
        """Let the time of what is waited for be over as soon as it was told, and not before."""
        tell = progress._Board._tell_once

        def tell_and_expire(board: progress._Board, wait: progress.Waiting, stream: object) -> None:
            tell(board, wait, stream)
            wait.deadline.expire()

        patch = mock.patch.object(progress._Board, "_tell_once", tell_and_expire)
        patch.start()
        self.addCleanup(patch.stop)

    def assert_told(self, *lines: str) -> None:
        self.assertEqual(self.told(), "".join(f"caseexec: waiting for {line}\n" for line in lines))

    def told(self) -> str:
        """What was told, without the seconds that have gone by; what becomes of a start that failed may take a moment."""
        told = re.sub(r"\b[0-9]+ s of", "N s of", self.stderr.getvalue())
        return re.sub(r".* to end after SIGTERM, N s of 1\n", "", told)

    def tell_anew(self) -> None:
        self.stderr.truncate(0)
        self.stderr.seek(0)

    def assert_start_fails(self, executor: SimpleExecutor) -> None:
        with self.assertRaises(errors.TimeoutExpired):
            executor.start()

    def test_a_start_tells_what_for_and_the_last_refusal(self) -> None:
        port = self.port()
        self.end_when_told()
        self.assert_start_fails(TCPExecutor(SLEEP, "127.0.0.1", port, timeout=60))
        self.assert_told(f"sleep: a TCP connection to 127.0.0.1:{port}, N s of 60: connection refused")

    def test_of_a_declared_service_its_class_and_its_program_are_told(self) -> None:
        service = OutputService("sh -c 'exec sleep 300'", banner="never", start_timeout=60)
        self.end_when_told()
        self.assert_start_fails(service.executor(Declared(test_class="tests.shop.ShopTests", tmp=self.tmp)))
        self.assert_told(
            "tests.shop.ShopTests (sh): output that matches 'never', N s of 60: not found in the 0 bytes that it wrote"
        )

    def test_without_a_probe_only_who_and_how_long_is_told(self) -> None:
        self.end_when_told()
        with self.assertRaises(errors.TimeoutExpired):
            SimpleExecutor(SLEEP, timeout=60, name="it").start().wait_for(lambda: False)
        self.assert_told("it, N s of 60")

    def test_it_is_told_while_a_probe_waits(self) -> None:
        port = self.port()
        web = HTTPExecutor(python(ACCEPTS_BUT_NEVER_ANSWERS, port), f"http://127.0.0.1:{port}", timeout=60)
        self.look_when(web, probes.TCPProbe("127.0.0.1", port).occupant)
        self.end_when_told()
        self.assert_start_fails(web)
        self.assertRegex(self.told(), r"^caseexec: waiting for python.*: HEAD http://.* any 2xx, N s of 60\n$")
        self.tell_anew()
        self.assert_start_fails(CommandExecutor(SLEEP, ["sleep", "301"], timeout=60))
        self.assert_told("sleep: 'sleep 301' to succeed, N s of 60")

    def test_a_stop_tells_who_does_not_hear_its_signal(self) -> None:
        executor = OutputExecutor(IGNORES_TERM, "deaf", stop_timeout=60, name="it").start()
        self.tell_anew()
        self.end_when_told()
        with self.assertWarns(errors.ForcedKillWarning):
            executor.stop()
        self.assert_told("it to end after SIGTERM, N s of 60")

    def test_it_names_the_signal_that_was_sent(self) -> None:
        executor = SimpleExecutor(SLEEP, stop_timeout=60, name="it").start()
        self.end_when_told()
        with self.assertWarns(errors.ForcedKillWarning):
            executor.stop(signal.SIGCONT)
        self.assert_told("it to end after SIGCONT, N s of 60")

    def test_a_stop_command_is_told(self) -> None:
        executor = SimpleExecutor(SLEEP, stop_command="sleep 300", name="it").start()
        self.end_when_told()
        with self.assertWarnsRegex(RuntimeWarning, "took too long"):
            executor.stop()
        self.assert_told("the stop command of it: sleep 300, N s of 10")

    def test_the_sweep_at_exit_tells_too(self) -> None:
        executor = OutputExecutor(IGNORES_TERM, "deaf", name="it").start()
        self.tell_anew()
        self.end_when_told()
        current_run()._sweep(Deadline(None))
        self.assertFalse(executor.running())
        self.assert_told("it to end after SIGTERM, N s of 10")

    def test_a_wait_that_is_short_tells_nothing(self) -> None:
        with mock.patch.object(progress, "_PATIENCE", 30), self.tcp():
            pass
        self.assert_told()

    def test_a_broken_stderr_changes_nothing(self) -> None:
        self.stderr.close()
        with self.tcp(TCP_SERVER, 0.2) as executor:
            self.assertTrue(executor.running())


class TerminalTests(ExecutorCase):
    def test_the_line_of_a_slow_start_goes_away_when_it_is_ready(self) -> None:
        terminal = Terminal(200)
        self.addCleanup(terminal.close)
        with mock.patch.dict(os.environ, TERM="xterm"), contextlib.redirect_stderr(terminal.stream):
            with self.tcp(TCP_SERVER, 3.2, name="it") as executor:
                written = terminal.written()
        text = rf"\rcaseexec: waiting for it: a TCP connection to 127.0.0.1:{executor.port}, \d+ s of 30: connection refused"
        self.assertRegex(written, rf"^({text}\x1b\[K)+\r\x1b\[K$")


class WithoutDescriptorsTests(ExecutorCase):
    def test_the_record_of_the_others_does_not_keep_one_that_ends_in_the_books(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with SimpleExecutor(SLEEP, **quiet), SimpleExecutor(SLEEP, **quiet) as executor:
            with (
                mock.patch.object(os, "open", side_effect=OSError(errno.EMFILE, "Too many open files")),
                warnings.catch_warnings(record=True) as caught,
            ):
                warnings.simplefilter("always")
                executor.kill()
            self.assertEqual(len(current_run().groups), 1)
            self.assertIn("BlindWarning", [warning.category.__name__ for warning in caught])


class SurvivorTests(ExecutorCase):
    """Of what not even SIGKILL ends, as a process that is stuck in the kernel."""

    @contextlib.contextmanager
    def stuck(self) -> Iterator[None]:
        with (
            mock.patch.object(Cgroup, "kill"),
            mock.patch.object(os, "killpg"),
            mock.patch.object(type(processes.table()), "send"),
            mock.patch.object(group, "_KILL_PATIENCE", 0.05),
        ):
            yield

    def end_all(self) -> None:
        for owned in list(current_run().groups):
            owned.stop()
            owned.forget()

    def test_they_are_told_and_stay_in_the_books_of_the_run_and_of_the_reaper(self) -> None:
        for way in ("kill", "stop", "discard"):
            with self.subTest(way):
                executor = SimpleExecutor(SLEEP, stop_timeout=0.05).start()
                pid, mark = executor.pid, executor._mark
                with self.stuck(), warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    getattr(executor, way)()
                leaks = [str(warning.message) for warning in caught if warning.category is LeakedProcessWarning]
                self.assertEqual(
                    leaks,
                    [f"sleep left processes behind (pid {pid}; command: sleep 300): not even SIGKILL has ended them; "
                     "it is tried again at the end of this run."],
                )  # fmt: skip
                self.assertFalse(executor.running())
                self.assertEqual([owned.group.mark for owned in current_run().groups], [mark])
                self.assertIn(mark, current_run().reaper._entries)
                self.end_all()
                self.assertFalse(alive(pid))
                self.assertNotIn(mark, current_run().reaper._entries)

    def test_a_warning_that_is_an_error_does_not_keep_the_executor_from_being_started_again(self) -> None:
        executor = SimpleExecutor(SLEEP).start()
        with self.stuck(), warnings.catch_warnings(), self.assertRaises(LeakedProcessWarning):
            warnings.simplefilter("error")
            executor.kill()
        with executor:
            self.assertTrue(executor.running())
        self.end_all()


class ForgottenTests(ExecutorCase):
    def test_one_that_is_deleted_ends_with_a_warning(self) -> None:
        executor = SimpleExecutor(SLEEP).start()
        pid = executor.pid
        with self.assertWarnsRegex(errors.LeakedProcessWarning, rf"pid {pid}; command: sleep 300.*context manager"):
            del executor
            gc.collect()
        self.assertFalse(alive(pid))

    def test_one_that_has_ended_by_itself_is_deleted_in_silence(self) -> None:
        executor = SimpleExecutor(EXIT_TRUE).start()
        self.assertTrue(soon(lambda: not executor.running()))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del executor
            gc.collect()

    def test_in_a_forked_child_it_touches_nothing(self) -> None:
        with self.tcp() as executor:
            path = executor.log_path
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    executor.stop()
                    executor.kill()
                    with executor.stopped():
                        pass
                    code = int(executor.running())
                finally:
                    os._exit(code)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            socket.create_connection((executor.host, executor.port)).close()
            self.assertTrue(os.path.exists(path))


class StoppedTests(ExecutorCase):
    def test_it_is_stopped_for_the_time_of_the_block(self) -> None:
        with self.tcp() as executor:
            pid = executor.pid
            with executor.stopped() as same:
                self.assertIs(same, executor)
                self.assert_refused(executor.port)
            socket.create_connection((executor.host, executor.port)).close()
            self.assertNotEqual(executor.pid, pid)

    def test_it_runs_again_also_when_the_block_raises(self) -> None:
        with self.tcp() as executor:
            with self.assertRaises(ZeroDivisionError), executor.stopped():
                _ = 1 / 0
            self.assertTrue(executor.running())

    def test_one_that_is_not_started_stays_so(self) -> None:
        executor = SimpleExecutor(SLEEP)
        with executor.stopped():
            pass
        self.assertFalse(executor.running())


class WaitTests(ExecutorCase):
    def test_each_kind_is_ready_when_start_returns(self) -> None:
        port, sock, pidfile = self.port(), self.path("s.sock"), self.path("s.pid")
        url = f"http://127.0.0.1:{port}/health?full=1"
        for executor in (
            TCPExecutor(python(TCP_SERVER, port, 0.05), "127.0.0.1", port),
            HTTPExecutor(python(HTTP_SERVER, port, 503, 503, 200), url),
            OutputExecutor(python(TCP_SERVER, port), "listening on"),
            UnixSocketExecutor(python(UNIX_SERVER, sock), sock),
            PidExecutor(["sh", "-c", f"echo $$ >{pidfile}.new; mv {pidfile}.new {pidfile}; exec sleep 300"], pidfile),
            CommandExecutor(python(TCP_SERVER, port), python("import socket, sys\n"
                "socket.create_connection(('127.0.0.1', int(sys.argv[1])))", port)),
        ):  # fmt: skip
            with self.subTest(type(executor).__name__), executor:
                self.assertTrue(executor.after_start_check())

    def test_an_early_exit_ends_the_wait(self) -> None:
        executor = self.tcp("print('it hurts'); raise SystemExit(3)")
        with quickly(self, 25), self.assertRaises(errors.ProcessExitedWithError) as caught:
            executor.start()
        error = caught.exception
        self.assertEqual((error.exit_code, error.facts.returncode, error.executor), (3, 3, executor))
        self.assertRegex(str(error), r"exited with status 3 after \d+\.\d\d s, before")
        self.assertIn(f"waiting for: a TCP connection to 127.0.0.1:{executor.port}", str(error))
        self.assertIn("    it hurts", str(error))
        self.assertTrue(os.path.exists(error.facts.log_path))
        self.assertIsNone(executor.process)

    def test_a_death_by_signal_is_named(self) -> None:
        with self.assertRaisesRegex(errors.ProcessExitedWithError, "was killed by SIGSEGV after"):
            self.tcp("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").start()

    def test_a_timeout_ends_the_command(self) -> None:
        executor = TCPExecutor(["sh", "-c", "echo tired; sleep 300"], "127.0.0.1", self.port(), timeout=0.5)
        self.look_when(executor, executor.tail)
        with quickly(self, 60), self.assertRaises(errors.TimeoutExpired) as caught:
            executor.start()
        error = caught.exception
        self.assertEqual((error.timeout, error.executor, error.facts.refusal), (0.5, executor, "connection refused"))
        self.assertIn("    tired", str(error))
        self.assertFalse(alive(error.facts.pid))
        self.assertEqual(str(pickle.loads(pickle.dumps(error))), str(error))

    def test_an_interrupt_in_the_wait_leaves_nothing(self) -> None:
        for interrupt in (KeyboardInterrupt, SystemExit):
            answers = iter([lambda: False, interrupt])
            executor = Executor(SLEEP, probe=lambda _, answers=answers: _raise_or_call(next(answers)))
            with self.assertRaises(interrupt):
                executor.start()
            self.assertIsNone(executor.process)

    def test_a_probe_that_is_wrong_ends_the_wait_with_its_cause(self) -> None:
        with self.assertRaises(ZeroDivisionError.__mro__[1]):
            Executor(SLEEP, probe=_Wrong()).start()

    def test_a_further_probe_must_hold_too(self) -> None:
        answers = iter([False, False, True])
        with self.tcp(probe=lambda executor: executor.port and next(answers)) as executor:
            self.assertEqual(next(answers, "all asked"), "all asked")
            self.assertIn(" and ", executor._facts().awaiting)

    def test_a_daemon_is_waited_for_and_ended(self) -> None:
        with self.tcp(TCP_DAEMON) as executor:
            self.assertEqual(executor.process.wait(), 0)
            self.assertTrue(executor.running())
            self.assertTrue(soon(lambda: len(executor.living()) == 1))  # Who has started it may take a moment to go.
            (daemon,) = executor.living()
        self.assertFalse(alive(daemon))
        self.assert_refused(executor.port)

    def test_a_command_that_ended_well_but_is_never_ready_says_so(self) -> None:
        executor = self.tcp("pass", timeout=0.3)
        self.look_when(executor, lambda: executor.exit_code() is not None)
        with self.assertRaisesRegex(
            errors.TimeoutExpired, "The command itself had ended by then: it exited with status 0"
        ):
            executor.start()

    def test_a_function_of_ones_own_can_be_waited_for(self) -> None:
        with SimpleExecutor(SLEEP, timeout=60) as executor:
            answers = iter([False, True])
            self.assertIs(executor.wait_for(lambda: next(answers)), executor)
            self.assertTrue(executor.check_timeout())
        with SimpleExecutor(SLEEP, timeout=0.05) as executor:
            with self.assertRaises(errors.TimeoutExpired):
                executor.wait_for(lambda: False)
            self.assertFalse(executor.running())

    def test_a_subclass_with_checks_of_its_own(self) -> None:
        class Patient(Executor):
            asked = 0

            def pre_start_check(self) -> bool:
                return False

            def after_start_check(self) -> bool:
                self.asked += 1
                return self.asked == 3

        with Patient(SLEEP) as executor:
            self.assertEqual(executor.asked, 3)

    def test_a_subclass_that_is_already_running(self) -> None:
        class Taken(Executor):
            def pre_start_check(self) -> bool:
                return True

        with self.assertRaisesRegex(errors.AlreadyRunning, "what it needs is taken"):
            Taken(SLEEP).start()

    def test_a_subclass_may_use_the_names_that_caseexec_adds(self) -> None:
        class Named(TCPExecutor):
            def __init__(self, port: int) -> None:
                self.name, self.port = "mine", port
                super().__init__(python(TCP_SERVER, port), "127.0.0.1", port)
                self.url, self.address, self.pid, self.tmp, self.log_path = "a", "b", "c", "d", "e"

            def facts(self, needed: int) -> None: ...
            def tail(self, needed: int, too: int) -> None: ...

        with Named(self.port()) as executor:
            self.assertEqual((executor.name, executor.url, executor.pid), ("mine", "a", "c"))
        failing = Named(self.port())
        failing.command_parts = EXIT_3
        with self.assertRaisesRegex(errors.ProcessExitedWithError, "it hurts"):
            failing.start()

    def test_a_subclass_that_cleans_up_in_kill_is_called_when_the_wait_fails(self) -> None:
        killed = []

        class Cleaning(SimpleExecutor):
            def kill(self, *args, **kwargs):
                killed.append(self.process)
                return super().kill(*args, **kwargs)

        with self.assertRaises(errors.TimeoutExpired):
            Cleaning(SLEEP, timeout=0.05).start().wait_for(lambda: False)
        self.assertEqual(len(killed), 1)

    def test_the_settings_of_an_http_executor_can_be_seen_and_changed(self) -> None:
        port = self.port()
        executor = HTTPExecutor(python(HTTP_SERVER, port, 404), f"http://127.0.0.1:{port}", payload={"a": "b"})
        self.assertEqual((executor.method, executor.payload, executor.headers), ("HEAD", {"a": "b"}, None))
        self.assertEqual(executor.status_re.pattern, executor.status)
        executor.status = "404"
        executor.method = "POST"
        with executor:
            self.assertIn("POST / HTTP/1.1", executor.tail())
        self.assertEqual(HTTPExecutor("x", "http://h/").port, HTTPExecutor.DEFAULT_PORT)

    def test_an_executor_without_any_check_says_what_it_needs(self) -> None:
        with self.assertRaisesRegex(NotImplementedError, "Executor needs a probe"):
            Executor(SLEEP).start()


def _raise_or_call(answer):
    if isinstance(answer, type):
        raise answer
    return answer()


class _Wrong:
    def check(self, target) -> None:
        raise ArithmeticError("this probe is wrong")


class AlreadyRunningTests(ExecutorCase):
    def test_the_owner_of_the_port_is_named(self) -> None:
        with self.tcp() as first:
            second = TCPExecutor(SLEEP, first.host, first.port)
            with self.assertRaises(errors.AlreadyRunning) as caught:
                second.start()
            error = caught.exception
            self.assertEqual((error.owner.pid, error.executor), (first.pid, second))
            self.assertIn(f"port 127.0.0.1:{first.port} is held by pid {first.pid}", str(error))
            self.assertTrue(first.running())

    def test_one_that_runs_cannot_be_started_again(self) -> None:
        with self.tcp() as executor:
            with self.assertRaises(errors.AlreadyRunning):
                executor.start()
            self.assertTrue(executor.running())

    def test_the_owner_of_a_unix_socket_is_named(self) -> None:
        sock = self.path("s.sock")
        with UnixSocketExecutor(python(UNIX_SERVER, sock), sock) as first:
            with self.assertRaisesRegex(errors.AlreadyRunning, f"Unix socket {sock} is held by pid {first.pid}"):
                UnixSocketExecutor(SLEEP, sock).start()

    def test_the_owner_of_a_pid_file_is_named(self) -> None:
        with open(self.path("s.pid"), "w") as file:
            file.write(str(os.getpid()))
        with self.assertRaisesRegex(errors.AlreadyRunning, f"pid file .*s.pid is held by pid {os.getpid()}"):
            PidExecutor(SLEEP, self.path("s.pid")).start()

    def test_a_stale_pid_file_is_no_owner(self) -> None:
        process = subprocess.Popen(["true"])
        process.wait()
        with open(self.path("s.pid"), "w") as file:
            file.write(str(process.pid))
        with PidExecutor(
            ["sh", "-c", 'echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 300', self.path("s.pid")], self.path("s.pid")
        ) as executor:
            with open(self.path("s.pid")) as file:
                self.assertEqual(int(file.read()), executor.pid)

    def test_a_command_that_fails_and_leaves_its_pid_file_has_failed(self) -> None:
        executor = PidExecutor(["sh", "-c", f": >{self.path('s.pid')}; exit 3"], self.path("s.pid"))
        with mock.patch.object(pidfile, "_GRACE", 60), self.assertRaises(errors.ProcessExitedWithError):
            executor.start()

    def test_one_that_fails_just_when_it_seems_to_be_ready_has_failed(self) -> None:
        def ready(executor: Executor) -> bool:
            with open(self.path("go"), "w"):
                pass
            return soon(lambda: executor.exit_code() is not None)

        waits = ["sh", "-c", f"echo up; until test -e {self.path('go')}; do sleep 0.01; done; exit 3"]
        with self.assertRaises(errors.ProcessExitedWithError):
            OutputExecutor(waits, "up", probe=ready).start()

    def test_when_somebody_was_faster_after_our_check_that_is_told(self) -> None:
        port = self.port()
        # The thief was born before our command, and takes the port when our command lets it.
        thief = subprocess.Popen(
            ["sh", "-c", 'while ! test -e "$0"; do sleep 0.01; done; exec "$@"', self.path("go"), *python(TCP_SERVER, port)],
            start_new_session=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(thief.wait)
        self.addCleanup(thief.kill)
        # Start times are told in hundredths of a second.
        self.assertTrue(soon(lambda: clock_is_after(thief.pid)))
        # It still tries to bind while the thief answers already.
        ours = python("import sys, time; open(sys.argv[1], 'w').close(); time.sleep(300)", self.path("go"))
        with self.assertRaises(errors.AlreadyRunning) as caught:
            TCPExecutor(ours, "127.0.0.1", port).start()
        self.assertEqual(caught.exception.owner.pid, thief.pid)
        self.assertIn("listener", str(caught.exception))

    def test_when_our_command_ends_because_somebody_was_faster_that_is_told(self) -> None:
        port = self.port()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            program = python("import sys; sys.exit('address already in use')")
            listen = mock.patch.object(TCPExecutor, "check_subprocess", autospec=True, side_effect=_listen_first(sock))
            with listen, self.assertRaises(errors.AlreadyRunning) as caught:
                TCPExecutor(program, "127.0.0.1", port).start()
        self.assertIsInstance(caught.exception.__cause__, errors.ProcessExitedWithError)
        self.assertIn("address already in use", str(caught.exception))
        self.assertEqual(caught.exception.owner.pid, os.getpid())

    def test_a_port_that_is_bound_without_a_listener_is_taken_too(self) -> None:
        port = self.port()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            with self.assertRaisesRegex(errors.AlreadyRunning, "could not be seen"):
                TCPExecutor(EXIT_3, "127.0.0.1", port).start()

    def test_any_listener_will_do_where_it_is_said(self) -> None:
        port = self.port()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            sock.listen()
            with TCPExecutor(SLEEP, "127.0.0.1", port, listener="any") as executor:
                self.assertTrue(executor.running())


def _listen_first(sock: socket.socket):
    real = Executor.check_subprocess

    def check(executor: Executor) -> bool:
        soon(lambda: executor._owned.group.poll() is not None)
        sock.listen()
        return real(executor)

    return check


class BadArgumentTests(ExecutorCase):
    def test_a_missing_program_tells_where_it_was_searched(self) -> None:
        for executor in (SimpleExecutor("no-such-program --x"), self.tcp_of("no-such-program --x")):
            with self.assertRaises(errors.CommandNotFound) as caught:
                executor.start()
            self.assertIn("there is no program 'no-such-program'", str(caught.exception))
            self.assertIn(f"Searched PATH: {os.environ['PATH']}", str(caught.exception))
        self.assertFalse(current_run().groups)

    def tcp_of(self, command: str) -> TCPExecutor:
        return TCPExecutor(command, "127.0.0.1", self.port())

    def test_a_missing_directory_is_named(self) -> None:
        with self.assertRaisesRegex(
            errors.CommandNotFound, "the directory '/no/such' is no directory\n  Create it, or"
        ):
            SimpleExecutor(SLEEP, cwd="/no/such").start()

    def test_a_program_that_is_not_executable_is_named(self) -> None:
        with open(self.path("plain"), "w") as file:
            file.write("no program")
        with self.assertRaisesRegex(errors.CommandNotExecutable, "plain' is not executable\n  Make it executable, or"):
            SimpleExecutor([self.path("plain")]).start()

    def test_the_environment_is_not_in_the_frames_of_the_error(self) -> None:
        import traceback

        executor = SimpleExecutor("no-such-program", envvars={"SECRET": "hunter" + "2"})
        try:
            executor.start()
        except errors.CommandNotFound as error:
            shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        self.assertIn("no program", shown)
        self.assertNotIn("hunter2", shown)

    def test_a_script_whose_interpreter_does_not_exist_is_explained(self) -> None:
        with open(self.path("script"), "w") as file:
            file.write("#!/no/such/interpreter\n")
        os.chmod(self.path("script"), 0o755)
        with self.assertRaisesRegex(errors.CommandNotFound, "the interpreter that '.*script' names in its first line"):
            SimpleExecutor([self.path("script")]).start()

    def test_a_temporary_directory_that_does_not_exist_is_not_blamed_on_the_program(self) -> None:
        with mock.patch("tempfile.tempdir", "/no/such"), self.assertRaises(FileNotFoundError) as caught:
            SimpleExecutor(SLEEP).start()
        self.assertNotIsInstance(caught.exception, errors.CommandNotFound)
        self.assertIn("TMPDIR", caught.exception.__notes__[0])

    def test_a_check_command_that_does_not_exist_is_named(self) -> None:
        with self.assertRaisesRegex(
            errors.CommandNotFound, "no program 'pg_isredy'\n  Install it, or change its check"
        ):
            CommandExecutor(SLEEP, "pg_isredy -q").start()

    def test_a_check_that_is_cut_short_does_not_hide_what_it_said_before(self) -> None:
        executor = CommandExecutor(SLEEP, ["sh", "-c", "echo not yet; sleep 0.05; false"], timeout=60)
        look = executor.after_start_check

        def last_look() -> bool:
            if executor._refusal:  # It has said so; now the time is over.
                executor._deadline.expire()
            return look()

        executor.after_start_check = last_look
        with self.assertRaisesRegex(errors.TimeoutExpired, "last refusal: .* exited with status 1: not yet"):
            executor.start()

    def test_a_nul_in_the_command_is_told(self) -> None:
        with self.assertRaisesRegex(errors.DeclarationError, "command: .* cannot be run: embedded null byte"):
            SimpleExecutor(["echo", "a\0b"]).start()
        self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_a_shell_that_finds_no_command_is_explained(self) -> None:
        executor = self.tcp_of("no-such-program")
        executor._shell = True
        with self.assertRaisesRegex(errors.ProcessExitedWithError, "127 .the shell found no such command"):
            executor.start()

    def test_what_cannot_be_right_is_refused_when_it_is_said(self) -> None:
        for make, text in (
            (lambda: SimpleExecutor("").start(), "command: it is empty"),
            (lambda: SimpleExecutor([]).start(), "command: it is empty"),
            (lambda: SimpleExecutor("a 'b"), "command: .* cannot be split"),
            (lambda: TCPExecutor("x", "h", 0), "port: 0 is no port: it must be a number from 1 to 65535"),
            (lambda: TCPExecutor("x", "h", 65536), "port: 65536 is no port"),
            (lambda: TCPExecutor("x", "h", "80"), "port: '80' is no port"),
            (lambda: TCPExecutor("x", "h", 80, listener="mine"), "listener: 'mine' is neither"),
            (lambda: HTTPExecutor("x", "/path"), "url: '/path' is no http:// or https:// URL"),
            (lambda: HTTPExecutor("x", "http://h", request_timeout=-1), "request_timeout: -1 is negative"),
            (lambda: OutputExecutor("x", "("), "banner: .* is no regular expression"),
            (lambda: OutputExecutor("x", "y", stdout=None, stderr=None), "stdout: nothing is captured"),
            (lambda: UnixSocketExecutor("x", ""), "socket_name: it is empty"),
            (lambda: PidExecutor("x", ""), "filename: it is empty"),
            (lambda: CommandExecutor("x", ""), "check: it is empty"),
        ):
            with self.subTest(text), self.assertRaisesRegex(errors.DeclarationError, text):
                make()

    def test_a_url_answers_as_a_string_and_as_its_parts(self) -> None:
        url = HTTPExecutor("x", "http://127.0.0.1:8080/health?full=1").url
        self.assertEqual(url, "http://127.0.0.1:8080/health?full=1")
        self.assertEqual((url.hostname, url.port, url.path, url.geturl()), ("127.0.0.1", 8080, "/health", url))
        with self.assertRaises(AttributeError):
            _ = url.no_such_part

    def test_addresses(self) -> None:
        self.assertEqual(TCPExecutor("x", "::1", 80).address, "[::1]:80")
        self.assertEqual(TCPExecutor("x", "h", 80).url, "tcp://h:80")
        self.assertEqual(UnixSocketExecutor("x", "/s").url, "unix:///s")
        self.assertEqual((Executor("x").address, Executor("x").url, Executor("x").port), ("", "", None))

    def test_an_executor_of_something_that_runs_elsewhere_can_wait_for_it(self) -> None:
        class Elsewhere(TCPExecutor):
            def start(self):
                self._set_timeout()
                return self.wait_for(self.after_start_check)

        with self.tcp() as server:
            Elsewhere([], server.host, server.port, timeout=10).start().stop()

    def test_windows_gets_a_clear_error(self) -> None:
        with mock.patch.object(executors.simple.os, "name", "nt"), self.assertRaises(errors.UnsupportedPlatform):
            SimpleExecutor(SLEEP).start()


class DaemonTests(ExecutorCase):
    def test_a_pid_file_of_a_daemon(self) -> None:
        with PidExecutor(python(DOUBLE_FORKS, self.path("d.pid")), self.path("d.pid")) as executor:
            with open(self.path("d.pid")) as file:
                daemon = int(file.read())
            self.assertTrue(alive(daemon) and executor.running())
        self.assertFalse(alive(daemon))


@unittest.skipUnless(supervisor.available(), "there are no supervisors here")
class DaemonizesTests(ExecutorCase):
    def executor(self, command, **options) -> SimpleExecutor:
        made = SimpleExecutor(command, **{"daemonizes": True, **options})
        self.addCleanup(made.kill)
        return made

    def daemon(self, executor: SimpleExecutor) -> int:
        """The daemon's pid, when it is started and its parents are gone."""
        executor.start()
        self.assertTrue(soon(lambda: os.path.exists(self.path("pid"))))
        with open(self.path("pid")) as file:
            daemon = int(file.read())
        self.assertTrue(soon(lambda: processes.table().children(executor.pid) == [daemon]))
        return daemon

    def test_a_daemon_that_leaves_no_trace_is_ended(self) -> None:
        with mock.patch.object(current_run(), "_cgroups", None):
            executor = self.executor(python(VANISHES, self.path("pid"), ""))
            daemon = self.daemon(executor)
        self.assertTrue(executor.running())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            executor.stop()
        self.assertFalse(alive(daemon))

    def test_without_one_who_still_has_its_port_is_named_with_the_way_out_and_left_alone(self) -> None:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        owner = errors.Owner(pid=4711, command="hidden", user="joe")
        executor = TCPExecutor(python(TCP_SERVER, port), "127.0.0.1", port, name="it")
        with executor:
            stays = mock.patch.object(probes.TCPProbe, "occupant", return_value=owner)
            with stays, self.assertWarns(LeakedProcessWarning) as caught:
                executor.stop()
        self.assertEqual(
            str(caught.warning).partition("): ")[2],
            f"port 127.0.0.1:{port} is still held by pid 4711 (hidden) of user joe, after the service has ended. It was "
            "left alone, as it may be a stranger. If it is the service, gone to the background without a trace, set its "
            "daemonizes = True. End that process (kill 4711).",
        )

    def test_the_stop_signal_reaches_it(self) -> None:
        program = VANISHES.replace("exec sleep 300", r"""trap "echo asked; exit" TERM; while :; do sleep 0.01; done""")
        executor = self.executor(python(program, self.path("pid"), ""), stop_timeout=30)
        daemon = self.daemon(executor)
        executor.stop()
        self.assertEqual((executor.tail(), alive(daemon)), ("asked", False))

    def test_without_it_there_is_no_supervisor(self) -> None:
        with self.executor(SLEEP, daemonizes=False) as executor:
            self.assertEqual(executor.process.args, SLEEP)

    def test_where_there_is_none_it_changes_nothing(self) -> None:
        with mock.patch.object(supervisor, "available", return_value=False), self.executor(SLEEP) as executor:
            self.assertEqual(executor.process.args, SLEEP)
            self.assertFalse(executor._owned.group.supervised)

    def test_its_output_is_captured(self) -> None:
        executor = self.executor(python("import sys; print('out'); print('err', file=sys.stderr)")).start()
        self.assertEqual((executor.output().read(), executor.err_output().read()), ("out\n", "err\n"))
        self.assertTrue(soon(lambda: not executor.running()))
        executor.stop()

    def test_exit_status_and_signal_pass_through(self) -> None:
        for command, code in ((EXIT_3, 3), (EXIT_TRUE, 0), (DIES_BY_SEGV, -signal.SIGSEGV)):
            with self.subTest(code):
                executor = self.executor(command).start()
                self.assertTrue(soon(lambda executor=executor: executor._owned.group.poll() is not None))
                self.assertEqual(executor._facts().returncode, code)
                executor.kill()

    def test_one_that_fails_while_it_starts_is_an_error_and_takes_its_children_along(self) -> None:
        program = (
            VANISHES
            + """
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.001)
    sys.exit(3)
"""
        )
        executor = OutputExecutor(python(program, self.path("pid"), ""), "never", daemonizes=True)
        with (
            mock.patch.object(current_run(), "_cgroups", None),
            self.assertRaises(errors.ProcessExitedWithError) as caught,
        ):
            executor.start()
        self.assertEqual(caught.exception.exit_code, 3)
        with open(self.path("pid")) as file:
            self.assertFalse(alive(int(file.read())))

    def test_a_program_that_does_not_exist_is_the_same_error(self) -> None:
        os.mkdir(self.path("dir"))
        with open(self.path("dir/plain"), "w"):
            pass
        for command, options in (
            (["/no/such/program"], {}),
            (["no-such-program"], {}),
            (["no-such-program"], {"envvars": {"PATH": ""}}),
            (["sh"], {"envvars": {"PATH": self.path("dir")}}),
            (["./sh"], {"cwd": self.path("dir")}),
            (["sleep"], {"cwd": self.path("never")}),
            (["./plain"], {"cwd": self.path("dir")}),
            (["plain"], {"envvars": {"PATH": self.path("dir")}}),
            (["true"], {"popen_kwargs": {"executable": "/no/such/program"}}),
            ("true", {"shell": True, "popen_kwargs": {"executable": "/no/such/shell"}}),
        ):
            with self.subTest(command, **options):
                found = []
                for daemonizes in (False, True):
                    with self.assertRaises((errors.CommandNotFound, errors.CommandNotExecutable)) as caught:
                        self.executor(command, daemonizes=daemonizes, **options).start()
                    found.append((type(caught.exception), str(caught.exception)))
                self.assertEqual(*found)

    def test_a_relative_program_is_found_in_its_directory(self) -> None:
        os.symlink("/bin/sleep", self.path("snooze"))
        for options in ({"cwd": self.tmp}, {"cwd": self.tmp, "envvars": {"PATH": ""}}):
            with self.executor(["./snooze", "300"], **options) as executor:
                self.assertTrue(soon(lambda executor=executor: len(executor.living()) == 2))

    def test_a_program_is_searched_in_the_path_of_the_service(self) -> None:
        os.symlink("/bin/sleep", self.path("snooze"))
        with self.executor(["snooze", "300"], envvars={"PATH": self.tmp}) as executor:
            self.assertTrue(soon(lambda: len(executor.living()) == 2))

    def test_a_shell_runs_a_string(self) -> None:
        executor = self.executor("echo $0 | tr a-z A-Z", shell=True).start()
        self.assertEqual(executor.output().read(), "/BIN/SH\n")
        executor.kill()

    def test_another_program_is_run_under_the_name_of_the_command(self) -> None:
        for options, command in (({"shell": True}, "echo $0"), ({}, ["a name", "-c", "echo $0"])):
            outputs = []
            for daemonizes in (False, True):
                os.path.exists(self.path("my-shell")) or os.symlink("/bin/sh", self.path("my-shell"))
                further = {"executable": self.path("my-shell")}
                executor = self.executor(command, daemonizes=daemonizes, popen_kwargs=further, **options).start()
                outputs.append(executor.output().read())
                executor.kill()
            self.assertEqual(outputs, [f"{self.path('my-shell')}\n" if options else "a name\n"] * 2)
