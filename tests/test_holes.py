import errno
import os
import shutil
import subprocess
import sys
import unittest
from unittest import mock

from caseexec import holes
from tests.helpers.leaks import NothingRemains, on_disk, quickly

LIMIT = 128 * 1024
NOBODY = 65534


class HolesCase(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.log = self.path("log")
        self.fd = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.addCleanup(os.close, self.fd)

    def write(self, length: int) -> bytes:
        """Append so many bytes, of which no two parts are equal; all that was written."""
        size = os.fstat(self.fd).st_size
        first = size // 8
        numbers = b"".join(b"%7d\n" % number for number in range(first, first + length // 8 + 2))
        os.write(self.fd, numbers[size % 8 :][:length])
        return b"".join(b"%7d\n" % number for number in range(first + length // 8 + 2))[: size + length]

    def content(self) -> bytes:
        with open(self.log, "rb") as file:
            return file.read()

    def first_kept(self) -> int:
        """Where the hole ends."""
        content = self.content()
        return len(content) - len(content.lstrip(b"\0"))


class TrimTests(HolesCase):
    def test_a_log_below_the_limit_is_left_alone(self) -> None:
        written = self.write(LIMIT // 2)
        self.assertFalse(holes.trim(self.log, LIMIT))
        self.assertEqual(self.content(), written)

    def test_of_one_above_it_the_end_stays_where_it_was_and_the_head_takes_no_room(self) -> None:
        written = self.write(10 * LIMIT + 5000)
        self.assertTrue(holes.trim(self.log, LIMIT))
        self.assertEqual(len(self.content()), len(written))
        self.assertLessEqual(on_disk(self.log), LIMIT)
        self.assertEqual(self.first_kept() % 4096, 0, "NUL bytes in a block that is there look as if they were written")
        kept = len(written) - self.first_kept()
        self.assertGreaterEqual(kept, LIMIT // 2)
        self.assertEqual(self.content()[-kept:], written[-kept:])
        self.assertFalse(holes.trim(self.log, LIMIT), "once is enough")

    def test_who_writes_goes_on_at_the_end(self) -> None:
        self.write(2 * LIMIT)
        holes.trim(self.log, LIMIT)
        written = self.write(2 * LIMIT)
        self.assertEqual(self.content()[-5 * LIMIT // 2 :], written[-5 * LIMIT // 2 :])
        holes.trim(self.log, LIMIT)
        self.assertEqual(self.content()[-LIMIT // 2 :], written[-LIMIT // 2 :])
        self.assertLessEqual(on_disk(self.log), LIMIT)

    @unittest.skipUnless(shutil.which("fallocate"), "util-linux is not installed")
    def test_what_is_set_aside_behind_the_end_does_not_count(self) -> None:
        written = self.write(LIMIT)
        set_aside = ["--keep-size", "--offset", str(LIMIT), "--length", str(2 * LIMIT)]
        if subprocess.run(["fallocate", *set_aside, self.log], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("the file system sets nothing aside")
        self.assertGreater(os.fstat(self.fd).st_blocks * 512, 2 * LIMIT)
        self.assertFalse(holes.trim(self.log, LIMIT))
        self.assertEqual(self.content(), written)

    def test_nothing_of_the_end_is_freed_whatever_takes_the_room(self) -> None:
        written = self.write(LIMIT // 2)
        with mock.patch.object(holes, "_is_above", return_value=True):
            self.assertTrue(holes.trim(self.log, LIMIT))
        self.assertEqual(self.content(), written)


class SomethingElseTests(HolesCase):
    """What is not a file of ours stays as it is."""

    def assert_untouched(self, written: bytes) -> None:
        self.assertGreater(on_disk(self.log), LIMIT)
        self.assertEqual(self.content(), written)

    def test_a_link_is_not_followed(self) -> None:
        written = self.write(2 * LIMIT)
        os.symlink(self.log, self.path("link"))
        with self.assertRaises(OSError) as caught:
            holes.trim(self.path("link"), LIMIT)
        self.assertEqual(caught.exception.errno, errno.ELOOP)
        self.assert_untouched(written)

    def test_neither_is_a_file_that_has_another_name_too(self) -> None:
        written = self.write(2 * LIMIT)
        os.link(self.log, self.path("link"))
        self.assertFalse(holes.trim(self.path("link"), LIMIT))
        self.assert_untouched(written)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a file away")
    def test_the_file_of_another_user_is_not_touched(self) -> None:
        written = self.write(2 * LIMIT)
        os.chown(self.log, NOBODY, NOBODY)
        self.assertFalse(holes.trim(self.log, LIMIT))
        self.assert_untouched(written)

    def test_a_pipe_does_not_keep_it_waiting(self) -> None:
        os.mkfifo(self.path("pipe"))
        with quickly(self, 5), mock.patch.object(holes, "_is_above", return_value=True):
            self.assertFalse(holes.trim(self.path("pipe"), LIMIT))


class NoHolesTests(HolesCase):
    """On a file system that makes none."""

    def setUp(self) -> None:
        super().setUp()
        error = OSError(errno.EOPNOTSUPP, "Operation not supported")
        self.punch = self.enterContext(mock.patch.object(holes, "_punch", side_effect=error))

    def test_size_and_end_stay_all_the_same(self) -> None:
        for size in (10 * LIMIT + 5000, 3 * LIMIT):
            with self.subTest(size):
                written = self.write(size)
                self.assertTrue(holes.trim(self.log, LIMIT))
                self.assertEqual(len(self.content()), len(written))
                self.assertEqual(self.content()[-LIMIT // 2 :], written[-LIMIT // 2 :])
                self.assertLessEqual(on_disk(self.log), LIMIT)
                self.assertEqual(self.first_kept() % holes._BLOCK, 0)

    def test_of_a_large_one_no_more_stays_than_a_small_process_can_hold(self) -> None:
        written = self.write(100 * LIMIT)
        self.assertTrue(holes.trim(self.log, 50 * LIMIT))
        kept = len(written) - self.first_kept()
        self.assertEqual(self.content()[-kept:], written[-kept:])
        self.assertIn(kept, range(64 * 1024, 70 * 1024))

    def test_where_the_size_alone_takes_room_it_is_emptied(self) -> None:
        self.write(2 * LIMIT)
        with mock.patch.object(holes, "_is_above", return_value=True):
            self.assertTrue(holes.trim(self.log, LIMIT))
        self.assertEqual(self.content(), b"")

    def test_another_error_is_none_that_calls_for_it(self) -> None:
        written = self.write(2 * LIMIT)
        self.punch.side_effect = OSError(errno.EIO, "Input/output error")
        with self.assertRaises(OSError):
            holes.trim(self.log, LIMIT)
        self.assertEqual(self.content(), written)


class SystemsTests(HolesCase):
    def test_without_ctypes_it_is_done_as_where_there_are_no_holes(self) -> None:
        self.write(2 * LIMIT)
        with (
            mock.patch.dict(sys.modules, ctypes=None),
            mock.patch.object(holes, "_empty", side_effect=holes._empty) as empty,
        ):
            self.assertTrue(holes.trim(self.log, LIMIT))
        empty.assert_called_once()
        self.assertLessEqual(on_disk(self.log), LIMIT)

    def test_what_the_system_refuses_is_told(self) -> None:
        read_only = os.open(self.log, os.O_RDONLY)
        self.addCleanup(os.close, read_only)
        with self.assertRaises(OSError) as caught:
            holes._punch(read_only, 4096)
        self.assertEqual(caught.exception.errno, errno.EBADF)

    def test_macos_is_asked_in_its_own_way(self) -> None:
        self.write(2 * LIMIT)
        with mock.patch.object(sys, "platform", "darwin"), mock.patch("fcntl.fcntl") as fcntl:
            holes.trim(self.log, LIMIT)
        (_, command, told), _ = fcntl.call_args
        # struct fpunchhole: flags, reserved, offset, length.
        self.assertEqual((command, told), (99, bytes(16) + (3 * LIMIT // 2).to_bytes(8, sys.byteorder)))


class ReadTests(HolesCase):
    def setUp(self) -> None:
        super().setUp()
        self.written = self.write(3 * LIMIT)
        holes.trim(self.log, LIMIT)
        self.kept = self.first_kept()

    def assert_read_from_the_hole(self) -> None:
        for start in (0, 1, self.kept - 1, self.kept - 4096):
            with self.subTest(start):
                self.assertEqual(holes.read(self.fd, start, self.kept + 9), (self.kept, self.written[self.kept :][:9]))
        begin, data = holes.read(self.fd, 100, 20_000)
        self.assertEqual(data, b"")
        self.assertGreater(begin, 100)

    def test_from_a_hole_it_is_what_follows(self) -> None:
        self.assert_read_from_the_hole()

    def test_so_it_is_where_the_system_does_not_tell_where_that_is(self) -> None:
        for problem in (OSError(errno.EINVAL, "no"), None):
            with mock.patch.object(os, "lseek", side_effect=problem or (lambda fd, position, how: position)):
                self.assert_read_from_the_hole()
        with mock.patch.object(os, "SEEK_DATA", create=True):
            del os.SEEK_DATA
            self.assert_read_from_the_hole()

    def test_elsewhere_it_is_what_is_there(self) -> None:
        end = len(self.written)
        self.assertEqual(holes.read(self.fd, self.kept, end), (self.kept, self.written[self.kept :]))
        self.assertEqual(holes.read(self.fd, end - 3, end), (end - 3, self.written[-3:]))
        self.assertEqual(holes.read(self.fd, end, end), (end, b""))
        self.assertEqual(holes.read(self.fd, end + 5, end), (end + 5, b""))

    def test_nul_bytes_that_were_written_are_no_hole(self) -> None:
        end = os.fstat(self.fd).st_size
        os.write(self.fd, b"\0\0\0x\0")
        self.assertEqual(holes.read(self.fd, end, end + 5), (end, b"\0\0\0x\0"))
        self.assertEqual(holes.read(self.fd, end + 4, end + 5), (end + 4, b"\0"))

    def test_what_is_freed_while_it_is_read_is_left_out(self) -> None:
        end, pread = len(self.written), os.pread

        def free_first(fd: int, length: int, offset: int) -> bytes:
            holes._punch(fd, end - 8192)
            return pread(fd, length, offset)

        def free_then(fd: int, length: int, offset: int) -> bytes:
            data = pread(fd, length, offset)
            holes._punch(fd, end - 4096)
            return data

        for reading, left in ((free_first, 8192), (free_then, 4096)):
            with self.subTest(left), mock.patch.object(os, "pread", reading):
                self.assertEqual(holes.read(self.fd, self.kept, end), (end - left, self.written[-left:]))
