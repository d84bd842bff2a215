"""Reading what a command writes while it runs."""

import re
import signal
import subprocess

from caseexec import errors
from caseexec.executors import OutputExecutor, SimpleExecutor
from tests.helpers.classes import masked
from tests.helpers.leaks import NothingRemains, quickly, soon
from tests.helpers.programs import python

# Writes each line that it is given, to stdout or, if it begins with "!", to stderr.
ECHOES = python("""
    import sys
    for line in sys.stdin:
        print(line.strip(), file=sys.stderr if line.startswith('!') else sys.stdout, flush=True)
""")


class ReadingTests(NothingRemains):
    def start(self, executor: SimpleExecutor) -> SimpleExecutor:
        executor.start()
        self.addCleanup(executor.kill)
        return executor

    def echo(self, **options) -> SimpleExecutor:
        return self.start(SimpleExecutor(ECHOES, **options))

    def say(self, executor: SimpleExecutor, *lines: str) -> None:
        for line in lines:
            executor.process.stdin.write(f"{line}\n")
        executor.process.stdin.flush()

    def test_what_was_written_since_a_mark(self) -> None:
        executor = self.echo()
        self.say(executor, "before")
        executor.wait_for_output("before\n")
        mark = executor.output_mark()
        self.assertEqual(executor.output_since(mark), "")
        self.say(executor, "one", "two")
        executor.wait_for_output("two\n", since=mark)
        self.assertEqual(executor.output_since(mark), "one\ntwo\n")
        self.assertEqual(executor.tail_since(mark, lines=1), "[... 4 bytes before]\ntwo")

    def test_stdout_comes_first_when_both_are_apart(self) -> None:
        executor = self.echo()
        mark = executor.output_mark()
        self.say(executor, "!err", "out")
        executor.wait_for_output("out\n")
        executor.wait_for_output("!err\n")
        self.assertEqual(executor.output_since(mark), "out\n!err\n")

    def test_a_mark_from_before_a_restart_sees_all_of_the_new_start(self) -> None:
        executor = self.echo()
        self.say(executor, "a long line in the first life")
        executor.wait_for_output("life\n")
        mark = executor.output_mark()
        executor.restart()
        self.say(executor, "new")
        executor.wait_for_output("new\n", since=mark)
        self.assertEqual(executor.output_since(mark), "new\n")

    def test_a_match_is_returned_with_its_groups(self) -> None:
        executor = self.echo()
        self.say(executor, "hello", "saved in 23 ms")
        self.assertEqual(executor.wait_for_output(r"^saved in (\d+) ms$")[1], "23")
        self.assertEqual(executor.wait_for_output(re.compile("(?i)HELLO"))[0], "hello")

    def test_only_what_came_since_the_mark_counts(self) -> None:
        executor = self.echo()
        self.say(executor, "hello")
        executor.wait_for_output("hello\n")
        with self.assertRaises(errors.OutputNotFound):
            executor.wait_for_output("hello", timeout=0.01, since=executor.output_mark())

    def test_what_does_not_come_in_time_is_told_and_nothing_is_ended(self) -> None:
        executor = self.echo(name="shop.Case.redis", stderr=subprocess.STDOUT)
        self.say(executor, "hello")
        executor.wait_for_output("hello\n")
        with self.assertRaises(errors.OutputNotFound) as caught:
            executor.wait_for_output("good(bye)?", timeout=0.01)
        told = str(caught.exception)
        command = told.partition("  command: ")[2].partition("\n  log: ")[0]
        self.assertEqual(
            re.sub(r"log: \S+", "log: LOG", masked(told.replace(command, "COMMAND"))),
            "shop.Case.redis has not written what matches 'good(bye)?' within 0.01 seconds\n"
            "  command: COMMAND\n"
            "  log: LOG\n"
            "  last output:\n"
            "    hello",
        )
        self.assertTrue(executor.running())

    def test_the_end_of_the_command_ends_the_wait(self) -> None:
        executor = self.start(SimpleExecutor("sh -c 'echo hello; exit 3'"))
        with quickly(self, 60), self.assertRaises(errors.OutputNotFound) as caught:
            executor.wait_for_output("goodbye", timeout=300)
        self.assertIn("exited with status 3, and has not written what matches 'goodbye'\n", str(caught.exception))
        self.assertEqual(executor.wait_for_output("hello")[0], "hello")

    def test_a_pattern_that_is_none_is_refused(self) -> None:
        with self.assertRaisesRegex(errors.DeclarationError, r"pattern: '\(' is no regular expression"):
            self.echo().wait_for_output("(")

    def test_what_is_no_mark_is_refused(self) -> None:
        for mark in (0, "x"):
            with self.assertRaisesRegex(
                errors.DeclarationError, rf"mark: {mark!r} is no mark: make one with output_mark"
            ):
                self.echo().output_since(mark)

    def test_nothing_is_captured_and_nothing_found(self) -> None:
        executor = self.start(SimpleExecutor("true", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.assertEqual((executor.output_mark(), executor.output_since(())), ((), ""))
        with self.assertRaises(errors.OutputNotFound):
            executor.wait_for_output("x", timeout=0.01)


class FateTests(NothingRemains):
    def test_how_it_ended_can_be_asked_at_any_time(self) -> None:
        executor = OutputExecutor("sh -c 'echo ready; exec sleep 300'", "ready")
        self.assertEqual((executor.was_stopped(), executor.has_died(), executor.exit_code()), (True, False, None))
        with executor:
            self.assertEqual((executor.was_stopped(), executor.has_died(), executor.exit_code()), (False, False, None))
            executor.process.send_signal(signal.SIGABRT)
            self.assertTrue(soon(executor.has_died))
            self.assertEqual((executor.was_stopped(), executor.exit_code()), (False, -signal.SIGABRT))
            executor.kill()
            self.assertEqual((executor.was_stopped(), executor.has_died()), (True, False))
        self.assertEqual(executor.exit_code(), -signal.SIGABRT)
