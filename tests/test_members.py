import os
import signal
import subprocess
import sys
from unittest import mock

from caseexec import processes
from caseexec.members import Members
from caseexec.registry import current_run
from tests.helpers.leaks import NothingRemains, soon
from tests.helpers.programs import CHILD_LEAVES, SLEEP, python


class Among:
    """A cgroup, as far as members ask one."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def pids(self) -> list[int]:
        return list(self._pids)


class MembersTests(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.table = processes.table()
        self.mark = current_run().new_mark()
        self.groups: list[int] = []
        self.members = self.make()

    def make(self) -> Members:
        return Members(self.mark.__eq__, lambda: self.groups, self.table.moment())

    def start(self, mark: str | None = None, command=SLEEP, **popen) -> int:
        environment = {**os.environ, **({processes.MARK: mark} if mark else {})}
        process = subprocess.Popen(command, **{"env": environment, "start_new_session": True, **popen})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # While the kernel loads a program its environment is empty.
        self.assertTrue(soon(lambda: self.table.mark(process.pid) == mark or popen))
        return process.pid

    def start_with_child(self, mark: str) -> tuple[int, int]:
        """One with a child that has left its session and environment."""
        parent = self.start(mark, python(CHILD_LEAVES, self.path("pid")))
        self.assertTrue(soon(lambda: os.path.exists(self.path("pid"))))
        with open(self.path("pid")) as file:
            child = int(file.read())
        self.addCleanup(os.kill, child, signal.SIGKILL)
        return parent, child

    def living(self) -> set[int]:
        return {status.identity.pid for status in self.members.living()}

    def test_nobody_belongs_to_it_at_first(self) -> None:
        self.start()
        self.assertEqual(self.living(), set())

    def test_who_carries_its_mark_belongs_to_it(self) -> None:
        pid = self.start(self.mark)
        self.start()
        self.assertEqual(self.living(), {pid})

    def test_marks_are_compared_whole(self) -> None:
        for other in (f"{self.mark}0", f"0{self.mark}", self.mark[:-1], self.mark[1:], f"{self.mark}.stop"):
            self.start(other)
        self.assertEqual(self.living(), set())

    def test_who_was_there_before_is_not_looked_at(self) -> None:
        self.start(self.mark)
        self.members = self.make()
        if isinstance(self.table, processes.Procfs):
            self.assertEqual(self.living(), set())

    def test_who_is_in_one_of_its_groups_belongs_to_it(self) -> None:
        leader = self.start(start_new_session=False, process_group=0)
        child = self.start(start_new_session=False, process_group=leader)
        self.assertEqual(self.living(), set())
        self.groups.append(leader)
        self.assertEqual(self.living(), {leader, child})

    def test_who_descends_from_one_belongs_to_it(self) -> None:
        parent, child = self.start_with_child(self.mark)
        # The child has a child of its own for a moment.
        self.assertTrue(soon(lambda: self.living() == {parent, child}))

    def test_who_is_in_one_of_its_cgroups_belongs_to_it(self) -> None:
        pid = self.start()
        self.members.cgroups = [Among(pid)]
        self.assertEqual(self.living(), {pid})

    def test_the_reaper_of_a_run_within_ends_by_itself(self) -> None:
        service, reaper = self.start(self.mark), self.start(f"{self.mark}/{processes.REAPING}")
        stop_command = self.start(f"{self.mark}/{processes.REAPING}/c0de.1.stop")
        self.assertEqual(self.living(), {service, reaper, stop_command})
        self.assertEqual(self.members.reaping(self.members.living()), {reaper, stop_command})

    def test_so_do_those_below_it_without_a_mark(self) -> None:
        reaper, child = self.start_with_child(f"{self.mark}/{processes.REAPING}")
        self.assertTrue(soon(lambda: self.living() == {reaper, child}))
        self.assertEqual(self.living() - self.members.reaping(self.members.living()), set())

    def test_who_is_within_what_a_reaper_has_started_is_none(self) -> None:
        self.start(f"{processes.REAPING}/c0de.1.stop/{self.mark}")
        self.assertEqual(self.members.reaping(self.members.living()), set())

    def test_who_was_found_stays_found(self) -> None:
        pid = self.start()
        self.members.cgroups = [Among(pid)]
        self.living()
        self.members.cgroups = []
        self.assertEqual(self.living(), {pid})
        with mock.patch.object(self.table, "since", return_value=[]):
            self.assertEqual(self.living(), {pid})

    def test_a_later_process_with_the_pid_of_one_that_was_found_is_not(self) -> None:
        pid = self.start()
        born = self.table.status(pid).identity.born
        self.members.known.add(processes.Identity(pid, born - 1))
        self.assertEqual(self.living(), set())
        self.members.known.add(processes.Identity(pid, born))
        self.assertEqual(self.living(), {pid})

    def test_a_zombie_has_ended(self) -> None:
        pid = self.start(self.mark)
        self.groups.append(pid)
        self.assertEqual(self.living(), {pid})
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(soon(lambda: self.living() == set()))

    def test_this_very_process_is_never_one(self) -> None:
        self.members.cgroups = [Among(os.getpid())]
        self.groups.append(os.getpgrp())
        self.assertNotIn(os.getpid(), self.living())

    def test_a_strangers_mark_is_read_once(self) -> None:
        pid = self.start("another.1")
        with mock.patch.object(self.table, "mark", side_effect=self.table.mark) as read:
            self.living()
            self.living()
        self.assertEqual(read.call_args_list.count(mock.call(pid)), 1)

    def test_one_without_an_environment_is_looked_at_again(self) -> None:
        pid = self.start(self.mark)
        with mock.patch.object(self.table, "mark", return_value=""):
            self.assertEqual(self.living(), set(), "it is just being loaded")
        self.assertEqual(self.living(), {pid})

    def test_where_the_last_pid_is_not_told_everybody_is_looked_at(self) -> None:
        pid = self.start(self.mark)
        self.groups.append(pid)
        self.members = self.make()
        # The leader is not among the new ones, although it was started just now.
        other = self.start(self.mark)
        with mock.patch.object(processes.Procfs, "_last_pid", return_value=0):
            self.assertEqual(self.living(), {pid, other})

    def test_without_a_descriptor_left_to_look_with_there_is_nobody_new(self) -> None:
        self.start(self.mark)
        with mock.patch.object(self.table, "since", side_effect=OSError):
            self.assertEqual(self.members.new(), set())


class InheritedMarkTests(NothingRemains):
    """Who has overwritten the mark in its environment may still have inherited the descriptor."""

    def setUp(self) -> None:
        super().setUp()
        if not processes.has_markers() or sys.platform != "linux":
            self.skipTest("this system has no descriptors with names")
        self.table, self.mark = processes.table(), current_run().new_mark()

    def start(self, environment: dict[str, str], inherits: bool) -> int:
        marker = processes.marker(self.mark)
        self.addCleanup(os.close, marker)
        process = subprocess.Popen(["/bin/sleep", "300"], env=environment, pass_fds=[marker] if inherits else [])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertTrue(soon(lambda: b"sleep" in self.command_line(process.pid)))
        return process.pid

    def command_line(self, pid: int) -> bytes:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()

    def test_it_is_the_mark_of_one_without_another(self) -> None:
        self.assertEqual(processes.mark_of(self.table, self.start({}, True)), self.mark)
        self.assertEqual(processes.mark_of(self.table, self.start({"A": "b"}, True)), self.mark)

    def test_the_environments_goes_first(self) -> None:
        self.assertEqual(processes.mark_of(self.table, self.start({processes.MARK: "x.1"}, True)), "x.1")

    def test_without_either_there_is_none(self) -> None:
        self.assertEqual(processes.mark_of(self.table, self.start({}, False)), "")
        self.assertIsNone(processes.mark_of(self.table, self.start({"A": "b"}, False)))

    def test_a_copy_that_a_fork_of_the_run_has_is_not_inherited(self) -> None:
        marker = processes.marker(self.mark)
        self.addCleanup(os.close, marker)
        self.assertIsNone(self.table.inherited_mark(os.getpid()))
        os.set_inheritable(marker, True)
        self.assertEqual(self.table.inherited_mark(os.getpid()), self.mark)
