import os
import tempfile
import unittest
from unittest import mock

from caseexec import memory

GIGABYTE = 1 << 30


class PlaceTests(unittest.TestCase):
    """It is in memory only where there is plenty of that, and nobody wants it elsewhere."""

    def setUp(self) -> None:
        self.memory = self.enterContext(tempfile.TemporaryDirectory())
        self.cgroup = self.enterContext(tempfile.TemporaryDirectory())
        self.enterContext(mock.patch.multiple(memory, _MEMORY=self.memory, _CGROUP=self.cgroup))
        self.enterContext(mock.patch.object(tempfile, "tempdir", "/tmp"))

    def place(self, room: float = 8, available: float = 8) -> str | None:
        found = mock.Mock(f_bavail=int(room * GIGABYTE), f_frsize=1)
        told = f"MemTotal: 1 kB\nMemAvailable: {int(available * GIGABYTE) >> 10} kB\n"
        opened = open

        def opening(path: str, *more: str):
            return mock.mock_open(read_data=told)() if path == "/proc/meminfo" else opened(path, *more)

        with mock.patch.object(os, "statvfs", return_value=found), mock.patch("builtins.open", opening):
            return memory.place()

    def limit(self, limit: str, current: float) -> None:
        for name, text in (("max", limit), ("current", str(int(current * GIGABYTE)))):
            with open(f"{self.cgroup}/memory.{name}", "w") as file:
                file.write(f"{text}\n")

    def test_with_plenty_it_is_in_memory(self) -> None:
        self.assertEqual(self.place(), self.memory)

    def test_it_is_not_where_there_is_little_room_or_little_memory(self) -> None:
        self.assertIsNone(self.place(room=0.0625))
        self.assertIsNone(self.place(available=3))

    def test_it_is_not_where_a_container_may_not_take_that_much(self) -> None:
        self.limit("max", 1)
        self.assertEqual(self.place(), self.memory)
        self.limit(str(8 * GIGABYTE), 1)
        self.assertEqual(self.place(), self.memory)
        self.limit(str(8 * GIGABYTE), 5)
        self.assertIsNone(self.place())

    def test_it_is_not_when_the_user_wants_temporary_files_elsewhere(self) -> None:
        with mock.patch.object(tempfile, "tempdir", "/var/tmp"):
            self.assertIsNone(self.place())

    def test_it_is_not_where_there_is_no_such_thing(self) -> None:
        with mock.patch.object(memory, "_MEMORY", f"{self.memory}/no"):
            self.assertIsNone(self.place())
        with mock.patch.object(os, "statvfs", side_effect=OSError):
            self.assertIsNone(memory.place())
