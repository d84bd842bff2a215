import os
import re
import stat
import subprocess
import threading
from unittest import mock

from caseexec import holes
from caseexec.output import Capture, OutputLog
from tests.helpers.leaks import NothingRemains


class OutputLogTests(NothingRemains):
    kept_logs = 0

    def setUp(self) -> None:
        super().setUp()
        self.log = OutputLog("a name/with: signs").open()
        self.addCleanup(self.log.remove)

    def write(self, data: bytes) -> None:
        os.write(self.log.writer, data)

    def find(self, pattern: str) -> bool:
        return self.log.find(re.compile(pattern, re.MULTILINE)) is not None

    def test_only_its_owner_can_read_the_file(self) -> None:
        self.assertEqual(stat.S_IMODE(os.stat(self.log.path).st_mode), 0o600)
        self.assertIn("caseexec-a_name_with_signs-", self.log.path)

    def test_two_writers_do_not_overwrite_each_other(self) -> None:
        second = os.open(self.log.path, os.O_WRONLY | os.O_APPEND)
        self.addCleanup(os.close, second)
        self.write(b"one\n")
        os.write(second, b"two\n")
        self.write(b"three\n")
        self.assertEqual(self.log.tail(), "one\ntwo\nthree")

    def test_the_tail_of_a_short_output_is_all_of_it(self) -> None:
        self.assertEqual(self.log.tail(), "")
        self.write(b"hello\nworld")
        self.assertEqual(self.log.tail(), "hello\nworld")

    def test_a_long_output_is_cut_to_its_last_lines_and_says_so(self) -> None:
        self.write(b"".join(b"line %d\n" % number for number in range(100)))
        tail = self.log.tail().splitlines()
        self.assertRegex(tail[0], r"^\[\.\.\. \d+ bytes before\]$")
        self.assertEqual((tail[1], tail[-1], len(tail)), ("line 60", "line 99", 41))

    def test_a_long_line_is_cut_to_its_last_bytes(self) -> None:
        self.write(b"x" * 100_000 + b"the end")
        tail = self.log.tail()
        self.assertLess(len(tail), 8 * 1024 + 50)
        self.assertTrue(tail.endswith("the end"))

    def test_what_is_no_utf8_is_shown_as_replaced(self) -> None:
        self.write(b"\xff\xfe ok")
        self.assertEqual(self.log.tail(), "�� ok")

    def test_what_came_since_a_mark(self) -> None:
        self.write(b"before\n")
        mark = self.log.mark()
        self.write(b"after\n")
        self.assertEqual(self.log.since(mark), "after\n")

    def test_a_banner_is_found_though_it_is_split_over_writes_and_in_mid_line(self) -> None:
        self.write(b"starting\n... rea")
        self.assertFalse(self.find("ready"))
        self.write(b"dy, stea")
        self.assertTrue(self.find("ready"))

    def test_a_banner_with_a_character_split_over_writes_is_found(self) -> None:
        data = "größe".encode()
        self.write(data[:4])
        self.assertFalse(self.find("größe"))
        self.write(data[4:])
        self.assertTrue(self.find("größe"))

    def test_anchors_are_the_ends_of_lines_wherever_the_search_goes_on(self) -> None:
        self.write(b"x" * 20_000)
        self.assertFalse(self.find("^xready"))
        self.write(b"xready\n")
        self.assertFalse(self.find("^xready"), "this is in the middle of a line")
        self.write(b"xready\n")
        self.assertTrue(self.find("^xready$"))

    def test_a_banner_is_found_in_fifty_megabytes(self) -> None:
        chunk = b"noise noise noise noise noise noise\n" * 30_000
        for _ in range(48):
            self.write(chunk)
        self.assertFalse(self.find("banner"))
        self.write(b"the banner")
        self.assertTrue(self.find("banner"))

    def test_a_match_that_was_the_last_that_was_written_may_turn_out_to_be_longer_or_none(self) -> None:
        os.write(self.log.writer, b"on 41")
        longer, none = (self.log.search(re.compile(pattern), 0) for pattern in (r"on (\d+)", r"on \d+$"))
        self.assertEqual((longer.look()[1], none.look()[0]), ("41", "on 41"))
        os.write(self.log.writer, b"25 and more")
        self.assertEqual((longer.look()[1], longer.end), ("4125", 7))
        self.assertIsNone(none.look())

    def test_a_match_that_goes_on_in_the_next_piece_is_whole(self) -> None:
        text = b"." * (64 * 1024 - 5) + b"on 4125 and more"
        os.write(self.log.writer, text)
        self.assertEqual(self.log.search(re.compile(r"on (\d+)"), 0).look()[1], "4125")

    def test_the_end_of_the_first_match_is_told_in_bytes(self) -> None:
        self.write(b"\xff\xc3\xa4 ready, steady\nready\n")
        end = self.log.find(re.compile("ready"))
        self.assertEqual((end, self.log.find(re.compile("ready"))), (9, 9))
        self.assertEqual(self.log.line_end(end), 18)

    def test_a_truncated_file_is_searched_from_its_beginning(self) -> None:
        self.write(b"a long beginning\n")
        self.assertFalse(self.find("ready"))
        os.truncate(self.log.path, 0)
        self.write(b"ready\n")
        self.assertTrue(self.find("ready"))

    def test_a_reader_waits_for_more_while_the_writer_is_alive(self) -> None:
        alive = threading.Event()
        alive.set()
        reader = self.log.reader(alive.is_set)
        self.write(b"one\n")
        self.assertEqual(reader.readline(), "one\n")
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(reader))
        thread.start()
        self.write(b"two\nthree")
        alive.clear()
        thread.join(10)
        self.assertEqual(lines, ["two\n", "three"])

    def test_for_an_error_a_row_of_equal_lines_is_told_once(self) -> None:
        capture = Capture()
        capture.open("x", subprocess.PIPE, None)
        self.addCleanup(capture.logs[0].remove)
        os.write(capture.logs[0].writer, b"up\n" + b"GET / 404\n" * 500 + b"down\n")
        self.assertEqual(capture.story(), "up\nGET / 404\n[... 500 times]\ndown")

    def test_the_tail_outlives_the_file(self) -> None:
        self.write(b"last words\n")
        self.log.remove()
        self.assertEqual(self.log.tail(), "last words")
        self.assertFalse(os.path.exists(self.log.path))
        with self.assertRaisesRegex(ValueError, "no longer open for writing"):
            _ = self.log.writer


class HoleTests(NothingRemains):
    """The head of the log was freed, as it was too large."""

    kept_logs = 0
    LIMIT = 128 * 1024
    # Lines of eight bytes; behind the hole begins line 8192.
    SIZE, KEPT = 128 * 1024, 64 * 1024

    def setUp(self) -> None:
        super().setUp()
        self.log = OutputLog("a").open()
        self.addCleanup(self.log.remove)
        self.write(0, 8192 + 8192)
        self.reader = self.log.reader(lambda: False)
        self.free()

    def write(self, first: int, last: int) -> None:
        os.write(self.log.writer, b"".join(b"%7d\n" % number for number in range(first, last)))

    def free(self) -> None:
        with mock.patch.object(holes, "_is_above", return_value=True):
            self.assertTrue(holes.trim(self.log.path, self.LIMIT))

    def find(self, pattern: str) -> int | None:
        return self.log.find(re.compile(pattern, re.MULTILINE))

    def test_a_tail_that_would_reach_into_it_begins_behind_it_and_says_how_much_is_left_out(self) -> None:
        lines = self.log.tail(lines=100_000, limit=100_000).splitlines()
        self.assertEqual(lines[0], f"[... {self.KEPT} bytes before]")
        self.assertEqual((lines[1], lines[-1], len(lines)), ("   8192", "  16383", 8193))

    def test_another_tail_is_as_ever(self) -> None:
        self.assertEqual(self.log.tail(3), f"[... {self.SIZE - 24} bytes before]\n  16381\n  16382\n  16383")

    def test_a_tail_is_that_of_a_service_that_writes_as_fast_as_it_is_freed(self) -> None:
        ends = iter([self.KEPT - 4096])
        with mock.patch.object(self.log, "mark", side_effect=lambda: next(ends, self.SIZE)):
            self.assertEqual(self.log.tail().splitlines()[-1], "  16383")

    def test_since_a_mark_in_it_is_what_follows_it_and_how_much_is_left_out(self) -> None:
        told = self.log.since(self.KEPT - 100).splitlines()
        self.assertEqual((told[0], told[1], told[-1]), ("[... 100 bytes before]", "   8192", "  16383"))

    def test_a_mark_behind_it_is_still_right(self) -> None:
        mark = self.log.mark()
        self.write(16384, 16384 + 3)
        self.assertEqual(self.log.since(mark), "  16384\n  16385\n  16386\n")
        self.assertEqual(self.log.since(self.SIZE - 8), "  16383\n  16384\n  16385\n  16386\n")

    def test_a_banner_behind_it_is_found_where_it_is(self) -> None:
        self.assertEqual(self.find("^  12345$"), 12346 * 8 - 1)

    def test_it_is_neither_a_match_nor_the_beginning_of_a_line(self) -> None:
        self.assertIsNone(self.find("\0"))
        self.assertIsNone(self.find("^   8192$"))
        self.assertIsNone(self.find("^     17$"))

    def test_a_search_that_had_begun_goes_on_behind_it(self) -> None:
        never = "never"
        self.assertIsNone(self.find(never))
        self.write(16384, 3 * 8192)
        self.free()
        os.write(self.log.writer, b"never")
        self.assertEqual(self.find(never), 3 * 8192 * 8 + 5)

    def test_a_reader_passes_over_it_with_a_line_that_tells_so(self) -> None:
        self.assertEqual(next(self.reader), f"[... {self.KEPT} bytes before]\n")
        self.assertEqual(self.reader.read(), "".join(f"{number:7}\n" for number in range(8192, 16384)))

    def test_a_reader_in_mid_line_begins_a_new_one_for_that(self) -> None:
        self.assertEqual(self.reader.read()[-8:], "  16383\n")
        os.write(self.log.writer, b"in mid")
        self.assertEqual(self.reader.read(), "in mid")
        self.assertEqual(self.reader.read(), "", "there is no more")
        before = self.log.mark()
        self.write(16384, 4 * 8192)
        self.free()
        first, second, _ = self.reader.read().split("\n", 2)
        self.assertEqual(first, "")
        left_out = int(second.split()[1])
        self.assertGreater(left_out, 0)
        self.assertEqual((before + left_out) % 4096, 0)

    def test_a_reader_at_the_end_of_a_line_does_not(self) -> None:
        self.assertEqual(self.reader.read()[-8:], "  16383\n")
        self.assertEqual(self.reader.read(), "", "there is no more")
        self.write(16384, 4 * 8192)
        self.free()
        self.assertEqual(next(self.reader), f"[... {8192 * 8} bytes before]\n")

    def test_a_reader_of_few_bytes_is_told_the_same(self) -> None:
        raw, told = self.reader.buffer.raw, b""
        while data := raw.read(7):
            told += data
        self.assertTrue(told.startswith(b"[... %d bytes before]\n   8192\n" % self.KEPT))
        self.assertEqual(len(told) - told.index(b"\n") - 1, self.SIZE - self.KEPT)

    def test_so_it_is_where_the_system_does_not_tell_of_holes(self) -> None:
        with mock.patch.object(os, "lseek", side_effect=OSError("no")):
            self.test_a_reader_passes_over_it_with_a_line_that_tells_so()
            self.test_a_banner_behind_it_is_found_where_it_is()
            self.test_since_a_mark_in_it_is_what_follows_it_and_how_much_is_left_out()
            self.test_a_tail_that_would_reach_into_it_begins_behind_it_and_says_how_much_is_left_out()

    def test_a_log_that_is_truncated_while_it_is_searched_ends_the_search(self) -> None:
        with mock.patch.object(self.log, "mark", return_value=self.SIZE):
            os.truncate(self.log.path, 0)
            self.assertIsNone(self.find("never"))
