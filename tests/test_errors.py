import copy
import dataclasses
import pickle
import sys
import unittest

from caseexec import errors
from caseexec.errors import Facts, Owner, exit_text, signal_name

FACTS = Facts(
    who="shop.tests.CacheTests",
    declared="shop.tests.CacheTests.service_",
    command="redis-server --port 6379",
    awaiting="a TCP connection to 127.0.0.1:6379",
    waited=1.5,
    refusal="connection refused",
    pid=4242,
    log_paths=("/tmp/x.log",),
    output="one\ntwo",
)


PORT = "port 127.0.0.1:6379"

LOOK = "ss -ltnp 'sport = :6379'" if sys.platform == "linux" else "lsof -nP -i :6379"


class FakeExecutor:
    """An executor that cannot be pickled, as real ones."""

    def __init__(self, **changes) -> None:
        self.told = dataclasses.replace(FACTS, **changes)

    def _facts(self) -> Facts:
        return self.told

    def __reduce__(self):
        raise TypeError("a running executor cannot be pickled")


def every_error() -> list[errors.ExecutorError]:
    executor = FakeExecutor()
    return [
        errors.ExecutorError(executor),
        errors.TimeoutExpired(executor, 30),
        errors.AlreadyRunning(executor, Owner(pid=7, command="redis-server", user="redis"), PORT),
        errors.ProcessExitedWithError(executor, 3),
        errors.ProcessFinishedWithError(executor, -11),
        errors.CommandNotFound(executor, "there is no program 'redis-server'", ["/usr/bin", "/bin"]),
        errors.UnsupportedPlatform(executor),
    ]


class TextTests(unittest.TestCase):
    maxDiff = None

    def test_how_a_process_ended_is_told_by_name(self) -> None:
        self.assertEqual(exit_text(3), "exited with status 3")
        self.assertEqual(exit_text(-11), "was killed by SIGSEGV")
        self.assertEqual(exit_text(143), "exited with status 143 (128 + SIGTERM)")
        self.assertEqual(exit_text(127), "exited with status 127 (the shell found no such command)")
        self.assertEqual(exit_text(126), "exited with status 126 (the program could not be executed)")
        self.assertEqual(exit_text(255), "exited with status 255")
        self.assertEqual((signal_name(15), signal_name(99)), ("SIGTERM", "signal 99"))

    def test_a_timeout_tells_the_whole_story(self) -> None:
        self.assertEqual(
            str(errors.TimeoutExpired(FakeExecutor(), 30)),
            """\
shop.tests.CacheTests timed out after 30 seconds: it was not ready
  A slow machine? Raise shop.tests.CacheTests.service_start_timeout, or all timeouts with CASEEXEC_TIMEOUT_SCALE.
  command: redis-server --port 6379
  waiting for: a TCP connection to 127.0.0.1:6379
  last refusal: connection refused
  log: /tmp/x.log
  last output:
    one
    two""",
        )

    def test_seconds_that_were_scaled_say_so(self) -> None:
        self.assertEqual(
            errors.TimeoutExpired(FakeExecutor(scale=3), 90).headline(),
            "shop.tests.CacheTests timed out after 90 seconds (30 x CASEEXEC_TIMEOUT_SCALE=3): it was not ready",
        )
        self.assertEqual(
            str(errors.ForcedKillWarning(dataclasses.replace(FACTS, scale=0.1), [7], 15, 0.1 * 10)),
            "shop.tests.CacheTests did not end within 1 second (10 x CASEEXEC_TIMEOUT_SCALE=0.1) of SIGTERM and was "
            "killed (pid 7; command: redis-server --port 6379). Give it more time with "
            "shop.tests.CacheTests.service_stop_timeout, or another signal with "
            "shop.tests.CacheTests.service_stop_signal.",
        )
        self.assertEqual([errors.seconds_text(1), errors.seconds_text(2, 0)], ["1 second", "2 seconds"])

    def test_a_command_of_several_lines_is_indented_and_two_logs_are_named(self) -> None:
        executor = FakeExecutor(command="\n    one\n      two\n    ", log_paths=("/a", "/b"))
        self.assertIn("  command: one\n      two\n  waiting", str(errors.TimeoutExpired(executor, 30)))
        self.assertIn("  log: /a and /b\n", str(errors.TimeoutExpired(executor, 30)))

    def test_a_wrong_answer_points_to_the_request(self) -> None:
        text = str(errors.TimeoutExpired(FakeExecutor(refusal="HTTP status 404 Not Found"), 1))
        self.assertIn("timed out after 1 second: it was not ready", text)
        self.assertIn("It answers, but not as awaited: shop.tests.CacheTests.service_path, ", text)

    def test_what_a_terminal_would_obey_is_shown(self) -> None:
        text = str(errors.TimeoutExpired(FakeExecutor(output="a\x1b]0;title\x07b"), 1))
        self.assertIn("    a\\x1b]0;title\\x07b", text)

    def test_a_service_that_had_ended_by_itself_is_not_blamed_on_the_stop(self) -> None:
        text = str(errors.ProcessFinishedWithError(FakeExecutor(), -9, asked=False))
        self.assertIn("had ended by itself before it was stopped: it was killed by SIGKILL", text)
        self.assertNotIn("expected_returncode", text)
        self.assertNotIn("waiting for", text)

    def test_a_timeout_says_that_the_command_had_ended(self) -> None:
        text = str(errors.TimeoutExpired(FakeExecutor(returncode=0, output=""), 30))
        self.assertIn("The command itself had ended by then: it exited with status 0.", text)
        self.assertIn("last output: none, it wrote nothing", text)

    def test_an_early_exit_says_how_and_when(self) -> None:
        error = errors.ProcessExitedWithError(FakeExecutor(), 3)
        self.assertEqual(
            error.headline(), "shop.tests.CacheTests exited with status 3 after 1.50 s, before it was ready"
        )

    def test_already_running_names_the_owner_and_the_way_out(self) -> None:
        error = errors.AlreadyRunning(FakeExecutor(), Owner(pid=7, command="redis-server", user="redis"), PORT)
        self.assertEqual(
            str(error).splitlines()[:2],
            [
                "shop.tests.CacheTests seems to be already running: "
                "port 127.0.0.1:6379 is held by pid 7 (redis-server) of user redis",
                "  End that process (kill 7), or use another port (shop.tests.CacheTests.service_port; 0 leases a free one). "
                "Is it meant to answer? Set shop.tests.CacheTests.service_listener = 'any'.",
            ],
        )

    def test_already_running_says_that_the_owner_could_not_be_seen(self) -> None:
        unseen = errors.AlreadyRunning(FakeExecutor(declared="", who="TCPExecutor('x')", pid=None), Owner(), PORT)
        self.assertIn("held by a process that could not be seen", str(unseen))
        self.assertIn("use another port (its port). Is it meant to answer? Set listener='any'.", str(unseen))
        self.assertIn(f"\n  Find and end that process (sudo {LOOK}), or use another port", str(unseen))
        nobody = errors.AlreadyRunning(FakeExecutor(), place=PORT)
        self.assertIn("taken, and who holds it could not be seen", str(nobody))

    def test_already_running_tells_what_to_do_about_a_pid_file(self) -> None:
        error = errors.AlreadyRunning(FakeExecutor(), Owner(pid=7), "pid file /run/x.pid")
        self.assertIn("remove the file if it is left from an earlier run", str(error))

    def test_an_owners_long_command_is_one_short_line(self) -> None:
        self.assertLess(len(str(Owner(pid=7, command="x\n" * 500))), 260)

    def test_a_missing_program_tells_where_it_was_searched_and_what_to_change(self) -> None:
        self.assertEqual(
            str(errors.CommandNotFound(FakeExecutor(), "there is no program 'redis-server'", ["/usr/bin", "/bin"])),
            """\
shop.tests.CacheTests could not be started: there is no program 'redis-server'
  Install it, or change shop.tests.CacheTests.service_command. Searched PATH: /usr/bin:/bin.
  command: redis-server --port 6379
  last refusal: connection refused""",
        )

    def test_a_wrong_status_at_the_stop_tells_how_to_allow_it(self) -> None:
        error = errors.ProcessFinishedWithError(FakeExecutor(), 3)
        self.assertIn("exited with status 3 when it was stopped", str(error))
        self.assertIn("shop.tests.CacheTests.service_expected_returncode", str(error))

    def test_a_death_by_another_signal_at_the_stop_is_nothing_to_allow(self) -> None:
        text = str(errors.ProcessFinishedWithError(FakeExecutor(), -9))
        self.assertIn("was killed by SIGKILL when it was stopped\n  That was not the stop signal: it crashed, or", text)
        self.assertNotIn("expected_returncode", text)

    def test_windows_is_told_what_to_do(self) -> None:
        self.assertIn("not on Windows", str(errors.UnsupportedPlatform(FakeExecutor())))
        self.assertIn("WSL", str(errors.UnsupportedPlatform(FakeExecutor())))

    def test_a_test_without_its_service_says_why(self) -> None:
        self.assertIn("b.B.setUpClass does not call super().setUpClass()", str(errors.ServiceNotStarted("a.A", "b.B")))
        self.assertIn("the test runner did not call setUpClass", str(errors.ServiceNotStarted("a.A")))
        self.assertIn("it does not run yet, as it (or what", str(errors.ServiceNotStarted("a.A.b", late=True)))

    def test_a_leak_names_class_command_and_pids(self) -> None:
        warning = errors.LeakedProcessWarning("a.A", "sleep 300", [1, 2], "nobody stopped it")
        self.assertEqual(str(warning), "a.A left processes behind (pid 1, 2; command: sleep 300): nobody stopped it.")
        self.assertIsInstance(warning, ResourceWarning)

    def test_a_forced_kill_names_process_and_knob(self) -> None:
        self.assertEqual(
            str(errors.ForcedKillWarning(FACTS, [4242], 15, 10.0)),
            "shop.tests.CacheTests did not end within 10 seconds of SIGTERM and was killed (pid 4242; command: "
            "redis-server --port 6379). Give it more time with shop.tests.CacheTests.service_stop_timeout, or another "
            "signal with shop.tests.CacheTests.service_stop_signal.",
        )


class TravelTests(unittest.TestCase):
    def test_every_error_can_be_pickled_and_keeps_its_text(self) -> None:
        for error in every_error():
            with self.subTest(type(error).__name__):
                back = pickle.loads(pickle.dumps(error))
                self.assertEqual((type(back), str(back), repr(back)), (type(error), str(error), repr(error)))
                self.assertIsNone(back.executor)
                self.assertEqual(back.facts, error.facts)

    def test_its_own_attributes_and_notes_travel_too(self) -> None:
        error = errors.ProcessExitedWithError(FakeExecutor(), 3)
        error.add_note("seen in CI")
        back = pickle.loads(pickle.dumps(error))
        self.assertEqual((back.exit_code, back.__notes__), (3, ["seen in CI"]))

    def test_an_error_can_be_copied(self) -> None:
        self.assertEqual(str(copy.copy(every_error()[1])), str(every_error()[1]))

    def test_declaration_errors_and_warnings_can_be_pickled(self) -> None:
        for error in (
            errors.DeclarationError("a.A.service_port", "it is odd"),
            errors.ServiceNotStarted("a.A", "b.B"),
            errors.ServiceNotStarted("a.A.b", late=True),
            errors.LeakedProcessWarning("a.A", "x", [1], "why"),
            errors.ForcedKillWarning(FACTS, [1], 15, 1.0),
        ):
            with self.subTest(type(error).__name__):
                self.assertEqual(str(pickle.loads(pickle.dumps(error))), str(error))

    def test_a_repr_is_short(self) -> None:
        for error in every_error():
            self.assertLess(len(repr(error)), 180)
            self.assertNotIn("\n", repr(error))

    def test_an_executor_that_tells_nothing_is_named(self) -> None:
        self.assertIn("something", str(errors.TimeoutExpired("something", 3)))

    def test_old_handlers_still_catch_them(self) -> None:
        self.assertTrue(issubclass(errors.CommandNotFound, FileNotFoundError))
        self.assertTrue(issubclass(errors.DeclarationError, ValueError))
        self.assertTrue(issubclass(errors.ProcessFinishedWithError, errors.ProcessExitedWithError))
