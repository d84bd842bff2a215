import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from caseexec import progress
from caseexec.deadline import Deadline
from caseexec.progress import Story, Waiting
from tests.helpers.leaks import quickly
from tests.helpers.runs import ROOT
from tests.helpers.terminals import Terminal
from tests.test_deadline import FakeTime

SHOP: Story = ("tests.shop.ShopTests (redis-server)", ": a TCP connection to 127.0.0.1:12345", "connection refused")
PILE: Story = ("tests.pile.PileTests (pile)", " to end after SIGTERM", "")
CLEAR = "\x1b[K"


class ProgressCase(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.time = FakeTime()
        self.use(mock.patch.object(progress, "_shared", progress._Board()))
        self.use(mock.patch.dict(os.environ, TERM="xterm"))

    def use(self, patch: Any) -> Any:
        self.addCleanup(patch.stop)
        return patch.start()

    def stderr(self, stream: Any) -> Any:
        self.use(mock.patch.object(sys, "stderr", stream))
        return stream

    def terminal(self, columns: int = 200) -> Terminal:
        terminal = Terminal(columns)
        self.addCleanup(terminal.close)
        self.stderr(terminal.stream)
        return terminal

    def waiting(self, story: Story | Callable[[], Story] = SHOP, timeout: float | None = 30) -> Waiting:
        tell = story if callable(story) else lambda: story
        return Waiting(Deadline(timeout, _clock=self.time.clock), tell, _clock=self.time.clock)

    def wait(self, seconds: float, *waits: Waiting) -> None:
        """Let some time go by in which all these wait."""
        for elapsed in Deadline(None, _clock=self.time.clock).turns(self.time.pause):
            for wait in waits:
                wait.deadline._call_watchers()
            if elapsed >= seconds:
                return


class PlainTests(ProgressCase):
    """Where stderr is no terminal."""

    def test_a_wait_is_told_once_after_two_seconds(self) -> None:
        stream = self.stderr(io.StringIO())
        with self.waiting() as wait:
            self.wait(1.9, wait)
            self.assertEqual(stream.getvalue(), "")
            self.wait(20, wait)
        self.assertEqual(
            stream.getvalue(),
            "caseexec: waiting for tests.shop.ShopTests (redis-server): a TCP connection to 127.0.0.1:12345, 2 s of 30: "
            "connection refused\n",
        )

    def test_each_wait_has_its_line(self) -> None:
        stream = self.stderr(io.StringIO())
        with self.waiting(timeout=None) as first:
            self.wait(1.5, first)
            with self.waiting(PILE, 1.26) as second:
                self.wait(2.1, first, second)
        self.assertEqual(
            stream.getvalue(),
            "caseexec: waiting for tests.shop.ShopTests (redis-server): a TCP connection to 127.0.0.1:12345, 2 s: "
            "connection refused\ncaseexec: waiting for tests.pile.PileTests (pile) to end after SIGTERM, 2 s of 1.3\n",
        )

    def test_a_terminal_that_cannot_rewrite_a_line_is_none(self) -> None:
        terminal = self.terminal()
        self.use(mock.patch.dict(os.environ, TERM="dumb"))
        with self.waiting(PILE) as wait:
            self.wait(5, wait)
        text = "caseexec: waiting for tests.pile.PileTests (pile) to end after SIGTERM, 2 s of 30\r\n"
        self.assertEqual(terminal.written(), text)

    def test_stderr_is_looked_up_when_it_is_written_to(self) -> None:
        before = self.stderr(io.StringIO())
        with self.waiting(PILE) as wait:
            self.wait(1.9, wait)
            stream = self.stderr(io.StringIO())
            self.wait(1, wait)
        self.assertEqual((before.getvalue(), stream.getvalue().count("\n")), ("", 1))

    def test_what_a_terminal_would_obey_is_shown_in_one_line(self) -> None:
        stream = self.stderr(io.StringIO())
        with self.waiting(("\x1b[31mred", ": it\nand\tthat", "HTTP status 500 \x1b]0;title\x07")) as wait:
            self.wait(2.1, wait)
        self.assertEqual(
            stream.getvalue(),
            "caseexec: waiting for \\x1b[31mred: it and that, 2 s of 30: HTTP status 500 \\x1b]0;title\\x07\n",
        )

    def test_it_is_of_a_sensible_length(self) -> None:
        stream = self.stderr(io.StringIO())
        with self.waiting(("x" * 10_000, "", "")) as wait:
            self.wait(2.1, wait)
        self.assertEqual(stream.getvalue(), f"caseexec: waiting for {'x' * 397}...\n")

    def test_a_story_that_cannot_be_told_ends_no_wait(self) -> None:
        stream = self.stderr(io.StringIO())
        with self.waiting(lambda: 1 / 0) as wait:
            self.wait(2.1, wait)
        self.assertEqual(stream.getvalue(), "caseexec: waiting for a service, 2 s of 30\n")


class TerminalTests(ProgressCase):
    def test_the_line_is_rewritten_once_a_second_and_goes_away(self) -> None:
        terminal = self.terminal()
        refusals = iter(["connection refused", "HTTP status 503", ""])
        with self.waiting(lambda: ("redis", ": it", next(refusals))) as wait:
            self.wait(1.9, wait)
            self.assertEqual(terminal.written(), "")
            self.wait(2.5, wait)
            self.assertEqual(
                terminal.written(),
                f"\rcaseexec: waiting for redis: it, 2 s of 30: connection refused{CLEAR}"
                f"\rcaseexec: waiting for redis: it, 3 s of 30: HTTP status 503{CLEAR}"
                f"\rcaseexec: waiting for redis: it, 4 s of 30{CLEAR}",
            )
        self.assertEqual(terminal.written(), f"\r{CLEAR}")

    def test_it_goes_away_when_the_wait_is_interrupted(self) -> None:
        terminal = self.terminal()
        with self.assertRaises(KeyboardInterrupt), self.waiting() as wait:
            self.wait(2.1, wait)
            terminal.written()
            raise KeyboardInterrupt
        self.assertEqual(terminal.written(), f"\r{CLEAR}")

    def test_all_that_wait_are_in_it(self) -> None:
        terminal = self.terminal()
        shop = "tests.shop.ShopTests (redis-server): a TCP connection to 127.0.0.1:12345"
        pile = "tests.pile.PileTests (pile) to end after SIGTERM"
        with self.waiting() as first:
            self.wait(0.6, first)
            with self.waiting(PILE, None) as second:
                self.wait(2.2, first, second)
                self.assertEqual(
                    terminal.written(),
                    f"\rcaseexec: waiting for {shop}, 2 s of 30: connection refused{CLEAR}"
                    f"\rcaseexec: waiting for {shop}, 2 s of 30: connection refused; {pile}, 2 s{CLEAR}",
                )
                self.wait(0.8, first, second)
                self.assertEqual(
                    terminal.written(),
                    f"\rcaseexec: waiting for {shop}, 3 s of 30: connection refused; {pile}, 3 s{CLEAR}",
                    "once a second, and not once a second for each",
                )
            self.assertEqual(
                terminal.written(), f"\rcaseexec: waiting for {shop}, 3 s of 30: connection refused{CLEAR}"
            )
        self.assertEqual(terminal.written(), f"\r{CLEAR}")

    def test_a_wait_that_was_never_told_does_not_touch_the_line(self) -> None:
        terminal = self.terminal()
        with self.waiting() as first:
            self.wait(2.1, first)
            terminal.written()
            with self.waiting(PILE) as second:
                self.wait(0.5, second)
            self.assertEqual(terminal.written(), "")

    def test_it_is_taken_from_where_it_was_written(self) -> None:
        terminal = self.terminal()
        with self.waiting(PILE) as wait:
            self.wait(2.1, wait)
            terminal.written()
            stream = self.stderr(io.StringIO())
            self.wait(2, wait)
        self.assertEqual(terminal.written(), f"\r{CLEAR}")
        self.assertEqual(
            stream.getvalue(), "caseexec: waiting for tests.pile.PileTests (pile) to end after SIGTERM, 3 s of 30\n"
        )

    def test_it_moves_with_stderr_to_another_terminal(self) -> None:
        before = self.terminal()
        with self.waiting(PILE) as wait:
            self.wait(2.1, wait)
            before.written()
            terminal = self.terminal()
            self.wait(1, wait)
            text = "caseexec: waiting for tests.pile.PileTests (pile) to end after SIGTERM, 3 s of 30"
            self.assertEqual((before.written(), terminal.written()), (f"\r{CLEAR}", f"\r{text}{CLEAR}"))
        self.assertEqual((before.written(), terminal.written()), ("", f"\r{CLEAR}"))


class WidthTests(ProgressCase):
    def line(self, columns: int, *stories: Story) -> str:
        """The line that tells of these."""
        terminal = self.terminal(columns)
        with contextlib.ExitStack() as stack:
            waits = [stack.enter_context(self.waiting(story)) for story in stories]
            self.wait(2.1, *waits)
            line = terminal.written().rpartition("\r")[2].removesuffix(CLEAR)
        self.assertLess(progress._width(line), columns or 81, "the last column stays free, or some terminals wrap")
        return line

    def test_a_line_that_is_too_long_is_cut(self) -> None:
        self.assertEqual(
            self.line(80, SHOP), "caseexec: waiting for tests.shop.ShopTests (redis-server): a TCP connection ..."
        )
        self.assertEqual(self.line(2, SHOP), ".")
        self.assertEqual(self.line(1, SHOP), "")

    def test_where_a_terminal_does_not_tell_there_are_80_columns(self) -> None:
        self.assertEqual(len(self.line(0, SHOP)), 79)

    def test_of_several_at_least_who_and_how_long_is_told(self) -> None:
        self.assertEqual(
            self.line(120, SHOP, PILE),
            "caseexec: waiting for tests.shop.ShopTests (redis-server) 2 s, tests.pile.PileTests (pile) 2 s",
        )

    def test_names_that_are_too_long_lose_their_beginnings(self) -> None:
        self.assertEqual(
            self.line(80, SHOP, ("db", "", ""), PILE),
            "caseexec: waiting for ...s (redis-server) 2 s, db 2 s, ...PileTests (pile) 2 s",
        )

    def test_too_many_are_counted(self) -> None:
        self.assertEqual(self.line(80, *[SHOP] * 9), "caseexec: waiting for 9 services")
        self.assertEqual(self.line(30, *[SHOP] * 9), "caseexec: waiting for 9 se...")

    def test_wide_characters_take_two_columns_and_accents_none(self) -> None:
        self.assertEqual(self.line(32, ("試験試験試験", "", "")), "caseexec: waiting for 試験試...")
        self.assertEqual(self.line(32, ("e\u0301" * 20, "", "")), "caseexec: waiting for " + "e\u0301" * 6 + "...")


class BrokenTests(ProgressCase):
    """What is wrong with stderr ends no wait."""

    class Broken(io.StringIO):
        def __init__(self, error: Exception, terminal: bool) -> None:
            super().__init__()
            self.error, self.terminal, self.asked = error, terminal, 0

        def isatty(self) -> bool:
            return self.terminal

        def write(self, text: str) -> int:
            self.asked += 1
            raise self.error

    def test_a_stream_that_cannot_be_written_to_is_passed_over(self) -> None:
        unknown = UnicodeEncodeError("ascii", "ä", 0, 1, "ordinal not in range")
        for error in (
            ValueError("closed"),
            BrokenPipeError(32, "Broken pipe"),
            unknown,
            RuntimeError("reentrant call"),
        ):
            for terminal in (False, True):
                with self.subTest(error=error, terminal=terminal):
                    stream = self.stderr(self.Broken(error, terminal))
                    with self.waiting() as wait:
                        self.wait(5, wait)
                    self.assertGreater(stream.asked, 0)

    def test_none_and_what_is_no_stream_and_a_closed_one_are_passed_over(self) -> None:
        closed = io.StringIO()
        closed.close()
        gone = self.terminal()
        for stream in (None, closed, object(), gone.stream):
            with self.subTest(stream):
                self.stderr(stream)
                with self.waiting() as wait:
                    self.wait(5, wait)
                    gone.stream.close()
                    self.wait(5, wait)

    def test_an_encoding_of_a_file_that_is_too_narrow_is_passed_over(self) -> None:
        with open(os.devnull, "w", encoding="ascii") as stream:
            self.stderr(stream)
            with self.waiting(("Тесты", "", "")) as wait:
                self.wait(5, wait)

    def test_without_the_attribute_nothing_happens_either(self) -> None:
        before = sys.stderr
        self.addCleanup(setattr, sys, "stderr", before)
        del sys.stderr
        with self.waiting() as wait:
            self.wait(5, wait)


class ThreadsTests(ProgressCase):
    def test_a_wait_does_not_wait_for_another_thread_that_writes(self) -> None:
        stream = self.stderr(io.StringIO())
        writes, go_on = threading.Event(), threading.Event()

        def write() -> None:
            with progress._shared._lock:
                writes.set()
                go_on.wait(30)

        other = threading.Thread(target=write)
        other.start()
        writes.wait(30)
        with self.waiting(PILE) as wait:
            with quickly(self, 20):
                self.wait(5, wait)
            self.assertEqual(stream.getvalue(), "")
            go_on.set()
            other.join()
            self.wait(0.05, wait)
            self.assertIn("5 s of 30\n", stream.getvalue(), "at the next turn")

    def test_a_signal_handler_may_wait_while_what_it_interrupted_writes(self) -> None:
        stream = self.stderr(io.StringIO())

        def story() -> Story:
            with self.waiting(("handler", "", "")) as wait:
                self.wait(2.1, wait)
            return PILE

        with quickly(self, 20), self.waiting(story) as wait:
            self.wait(2.1, wait)
        self.assertEqual(stream.getvalue().count("\n"), 2)

    def test_many_threads_write_one_line(self) -> None:
        self.use(mock.patch.object(progress, "_PATIENCE", 0.01))
        self.use(mock.patch.object(progress, "_EVERY", 0.001))
        terminal = self.terminal(70)
        written, together = [], threading.Event()

        def wait(name: str) -> None:
            for number in range(5):
                deadline = Deadline(0.05 if number else 60)
                with Waiting(deadline, lambda: (name, "", "")):
                    for _ in deadline.turns():
                        if len(progress._shared._waits) == 4:
                            together.set()
                        if number == 0 and together.is_set():
                            break

        threads = [threading.Thread(target=wait, args=(name * 5,)) for name in "abcd"]
        reader = threading.Thread(target=lambda: written.append(terminal.read()))
        reader.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        terminal.end()
        reader.join()
        first, *lines = written[0].split("\r")
        self.assertEqual((first, lines[-1]), ("", CLEAR))
        full, brief = r"[abcd]{5}, \d+ s of (0\.1|60)", r"[abcd]{5} \d+ s"
        told = rf"caseexec: waiting for ({full}(; {full})?|{brief}(, {brief}){{2,3}})"
        for line in lines:
            self.assertRegex(line, rf"^({told})?\x1b\[K$")
        self.assertTrue(any(len(re.findall(r" \d+ s", line)) == 4 for line in lines), lines)
        self.assertEqual(progress._shared._waits, [])

    def test_a_forked_child_tells_only_of_its_own_waits(self) -> None:
        terminal = self.terminal()
        forked, go_on = threading.Event(), threading.Event()

        def write() -> None:
            with progress._shared._lock:
                forked.set()
                go_on.wait(30)

        with self.waiting(PILE) as ours:
            self.wait(2.1, ours)
            before = terminal.written()
            other = threading.Thread(target=write)
            other.start()
            forked.wait(30)
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                with self.waiting(("mine", "", "")) as wait:
                    self.wait(2.1, wait)
                ours.__exit__(None, None, None)
                os._exit(0)
            go_on.set()
            other.join()
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertIn("PileTests", before)
            self.assertEqual(terminal.written(), f"\rcaseexec: waiting for mine, 2 s of 30{CLEAR}\r{CLEAR}")


class HouseTests(unittest.TestCase):
    def test_it_costs_next_to_nothing_before_it_is_told(self) -> None:
        wait = Waiting(Deadline(30), lambda: SHOP, _clock=FakeTime().clock)
        with mock.patch.object(progress, "_board") as board, wait:
            wait.deadline._call_watchers()
        board.assert_not_called()
        self.assertEqual(wait.deadline.watchers, [])

    def test_the_reaper_and_the_command_line_tell_nothing(self) -> None:
        program = "import sys, caseexec.remains, caseexec.cli; sys.exit('caseexec.progress' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
