import _thread
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from caseexec import cgroup
from caseexec.cgroup import Cgroup, Stay
from tests.helpers.leaks import NothingRemains, alive, soon
from tests.helpers.programs import SLEEP


@unittest.skipIf(cgroup.parent() is None, "no cgroup v2 can be made here")
class CgroupTests(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.cgroup = Cgroup(os.path.join(cgroup.parent(), f"caseexec-test-{secrets.token_hex(8)}"))
        self.assertTrue(self.cgroup.create())
        self.addCleanup(lambda: self.assertTrue(soon(self.cgroup.remove), "it remains"))
        self.addCleanup(self.cgroup.kill)

    def start(self, command=SLEEP) -> subprocess.Popen:
        process = subprocess.Popen(command)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def member(self, command=SLEEP) -> subprocess.Popen:
        process = self.start(command)
        self.assertTrue(self.cgroup.add(process.pid))
        return process

    def test_it_knows_its_members(self) -> None:
        self.assertEqual(self.cgroup.pids(), [])
        members = {self.member().pid, self.member().pid}
        self.start()
        self.assertEqual(set(self.cgroup.pids()), members)

    def test_what_a_member_starts_is_a_member(self) -> None:
        ready = self.path("ready")
        process = self.start(["sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.01; done; setsid sleep 300', ready])
        self.cgroup.add(process.pid)
        with open(ready, "w"):
            pass
        self.assertTrue(soon(lambda: len({*self.cgroup.pids()} - {process.pid}) == 1))

    def test_a_zombie_is_no_member(self) -> None:
        process = self.member()
        process.kill()
        self.assertTrue(soon(lambda: self.cgroup.pids() == []))

    def test_members_of_cgroups_below_are_members_too(self) -> None:
        process, below = self.member(), Cgroup(os.path.join(self.cgroup.path, "below"))
        below.create()
        self.assertTrue(below.add(process.pid))
        self.assertEqual(self.cgroup.pids(), [process.pid])
        self.assertTrue(self.cgroup.kill())
        process.wait(10)
        self.assertTrue(soon(self.cgroup.remove))

    def test_all_members_are_killed_at_once_and_nobody_else(self) -> None:
        members, other = [self.member() for _ in range(3)], self.start()
        self.assertTrue(self.cgroup.kill())
        self.assertEqual([process.wait(10) for process in members], [-9] * 3)
        self.assertIsNone(other.poll())

    def test_one_with_members_is_not_removed(self) -> None:
        process = self.member()
        self.assertFalse(self.cgroup.remove())
        self.assertEqual(self.cgroup.pids(), [process.pid])

    def test_an_ended_process_cannot_be_added(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        self.assertFalse(self.cgroup.add(process.pid))

    def test_one_that_is_there_is_not_made_again(self) -> None:
        self.assertFalse(self.cgroup.create())


class NoCgroupTests(unittest.TestCase):
    def test_one_that_is_not_there_refuses_everything(self) -> None:
        never = Cgroup("/no/such/cgroup")
        self.assertEqual((never.create(), never.add(1), never.kill(), never.pids()), (False, False, False, []))
        self.assertTrue(never.remove(), "there is nothing to remove")


class ParentTests(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="t-")
        self.addCleanup(os.rmdir, self.directory)
        self.procs = os.path.join(self.directory, "cgroup.procs")
        with open(self.procs, "w"):
            pass
        self.addCleanup(os.unlink, self.procs)
        for patch in (
            mock.patch.dict(os.environ),
            mock.patch.object(cgroup, "own_directory", lambda: self.directory),
            # An ordinary directory has no such file.
            mock.patch.object(cgroup.os.path, "exists", lambda path: path.endswith("/cgroup.kill")),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop(cgroup.SWITCH, None)

    def test_it_is_our_own_and_the_attempt_leaves_nothing_behind(self) -> None:
        self.assertEqual(cgroup.parent(), self.directory)
        self.assertEqual(os.listdir(self.directory), ["cgroup.procs"])

    def test_there_is_none_when_turned_off(self) -> None:
        os.environ[cgroup.SWITCH] = "0"
        self.assertIsNone(cgroup.parent())
        os.environ[cgroup.SWITCH] = "1"
        self.assertEqual(cgroup.parent(), self.directory)

    def test_there_is_none_without_cgroup_v2(self) -> None:
        with mock.patch.object(cgroup, "own_directory", return_value=None):
            self.assertIsNone(cgroup.parent())

    def test_there_is_none_where_we_may_not_move_a_process(self) -> None:
        with mock.patch.object(cgroup.os, "access", lambda path, mode: (path, mode) != (self.procs, os.W_OK)):
            self.assertIsNone(cgroup.parent())

    def test_there_is_none_where_the_kernel_refuses_to_make_one(self) -> None:
        with mock.patch.object(cgroup.os, "access", lambda path, mode: (path, mode) != (self.directory, os.W_OK)):
            self.assertIsNone(cgroup.parent())

    def test_there_is_none_on_a_kernel_that_cannot_kill_one(self) -> None:
        for release, parent in (("5.13.9-amd64", None), ("5.14.0", self.directory), ("6.1.0-rc2", self.directory)):
            without = mock.patch.object(cgroup.os.path, "exists", lambda path: False)
            with self.subTest(release), without, mock.patch.object(cgroup.os, "uname") as uname:
                uname.return_value.release = release
                self.assertEqual(cgroup.parent(), parent)
        self.assertEqual(os.listdir(self.directory), ["cgroup.procs"])


@unittest.skipUnless(sys.platform == "linux", "only Linux has cgroups")
class OwnDirectoryTests(unittest.TestCase):
    ROOT = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"

    def own_directory(self, own: str, *mounts: str) -> str | None:
        files = {"/proc/self/cgroup": [own], "/proc/self/mountinfo": list(mounts)}
        with mock.patch.object(cgroup, "_lines", files.__getitem__):
            return cgroup.own_directory()

    def test_it_is_below_the_mount_point(self) -> None:
        self.assertEqual(self.own_directory("0::/user.slice/a.scope\n", self.ROOT), "/sys/fs/cgroup/user.slice/a.scope")
        self.assertEqual(self.own_directory("0::/\n", self.ROOT), "/sys/fs/cgroup")

    def test_version_1_beside_it_is_passed_over(self) -> None:
        old = "32 23 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        self.assertEqual(self.own_directory("0::/a\n", old, self.ROOT), "/sys/fs/cgroup/a")
        self.assertIsNone(self.own_directory("0::/a\n", old))

    def test_there_is_none_where_we_are_only_in_version_1(self) -> None:
        self.assertIsNone(self.own_directory("4:memory:/a\n", self.ROOT))

    def test_a_mount_of_a_part_shows_that_part(self) -> None:
        part = "31 23 0:27 /containers/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
        self.assertEqual(self.own_directory("0::/containers/x/y\n", part), "/sys/fs/cgroup/y")
        self.assertEqual(self.own_directory("0::/containers/x\n", part), "/sys/fs/cgroup")
        self.assertIsNone(self.own_directory("0::/containers/xy\n", part), "this part is not mounted")

    def test_a_name_that_begins_with_dots_is_a_name(self) -> None:
        self.assertEqual(self.own_directory("0::/..a\n", self.ROOT), "/sys/fs/cgroup/..a")

    def test_a_blank_in_the_mount_point_is_read(self) -> None:
        mount = "31 23 0:27 /a\\040b /my\\040own\\134dir rw - cgroup2 cgroup2 rw\n"
        self.assertEqual(self.own_directory("0::/a b/c\n", mount), "/my own\\dir/c")

    def test_names_of_any_encoding_are_read(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"caf\xe9\n0::/caf\xe9\n")
            file.flush()
            self.assertEqual(os.fsencode(cgroup._field(file.name, "0::")), b"/caf\xe9")

    def test_there_is_none_where_proc_is_not_mounted(self) -> None:
        with mock.patch.object(cgroup, "_lines", side_effect=FileNotFoundError):
            self.assertIsNone(cgroup.own_directory())

    def test_there_is_none_on_other_systems(self) -> None:
        with mock.patch.object(sys, "platform", "darwin"):
            self.assertIsNone(self.own_directory("0::/\n", self.ROOT))


class SlowCgroup:
    """A cgroup that takes nobody in until it may."""

    def __init__(self) -> None:
        self.happened: list[object] = []
        self.may = threading.Event()

    def create(self) -> bool:
        self.happened.append("created")
        return True

    def add(self, pid: int) -> bool:
        self.may.wait(30)
        self.happened.append(pid)
        return True

    def remove(self) -> bool:
        self.happened.append("removed")
        return True


class StayTests(unittest.TestCase):
    def setUp(self) -> None:
        self.cgroup = SlowCgroup()
        self.addCleanup(cgroup.await_arrivals)
        self.addCleanup(self.cgroup.may.set)

    def arrive(self) -> None:
        self.cgroup.may.set()
        cgroup.await_arrivals()

    def test_a_process_goes_there_while_its_start_goes_on(self) -> None:
        Stay(self.cgroup, 7, lambda pid: ())
        self.assertTrue(soon(lambda: self.cgroup.happened == ["created"]), "and it is still under way")
        self.arrive()
        self.assertEqual(self.cgroup.happened, ["created", 7])

    def test_those_that_it_has_started_meanwhile_follow_each_once(self) -> None:
        born = iter([[], [8], [8, 9], [8, 9]])
        Stay(self.cgroup, 7, lambda pid: next(born))
        self.arrive()
        self.assertEqual(self.cgroup.happened, ["created", 7, 8, 9])

    def test_at_its_end_the_cgroup_is_removed(self) -> None:
        stay = Stay(self.cgroup, 7, lambda pid: ())
        self.arrive()
        stay.end()
        self.assertEqual(self.cgroup.happened, ["created", 7, "removed"])

    def test_one_that_ends_under_way_is_removed_when_it_arrives(self) -> None:
        stay = Stay(self.cgroup, 7, lambda pid: ())
        stay.end()
        self.assertNotIn("removed", self.cgroup.happened)
        self.arrive()
        self.assertEqual(self.cgroup.happened[-1], "removed")

    def test_no_thread_remains(self) -> None:
        before = _thread._count()
        Stay(self.cgroup, 7, lambda pid: ())
        self.assertTrue(soon(lambda: _thread._count() == before + 1))
        self.arrive()
        self.assertTrue(soon(lambda: _thread._count() == before))
        self.assertEqual(cgroup._under_way, set())

    def test_an_error_on_the_way_still_ends_the_stay(self) -> None:
        def vanished(pid: int) -> list[int]:
            raise OSError("no descriptor is left to look with")

        self.cgroup.may.set()
        with mock.patch.object(sys, "unraisablehook"):
            stay = Stay(self.cgroup, 7, vanished)
            cgroup.await_arrivals()
        stay.end()
        self.assertEqual((self.cgroup.happened[-1], cgroup._under_way), ("removed", set()))

    def test_without_a_thread_the_start_waits_for_it(self) -> None:
        self.cgroup.may.set()
        with mock.patch.object(_thread, "start_new_thread", side_effect=RuntimeError("can't start new thread")):
            stay = Stay(self.cgroup, 7, lambda pid: ())
        self.assertEqual((self.cgroup.happened, cgroup._under_way), (["created", 7], set()))
        stay.end()
        self.assertEqual(self.cgroup.happened[-1], "removed")

    def test_a_fork_waits_for_it_and_the_child_has_none(self) -> None:
        # No other thread may release it: of that one, too, a fork would warn.
        with mock.patch.object(self.cgroup.may, "wait", lambda _: time.sleep(0.05)):
            Stay(self.cgroup, 7, lambda pid: ())
            child = os.fork()
        if child == 0:
            os._exit(len(cgroup._under_way) + (self.cgroup.happened != ["created", 7]))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertFalse(alive(child))
