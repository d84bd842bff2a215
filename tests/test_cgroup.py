import errno
import io
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

from caseexec import cgroup
from caseexec.cgroup import Cgroup
from tests.helpers.leaks import NothingRemains, alive, soon
from tests.helpers.programs import SLEEP, python


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
        with self.cgroup.entered() as inside:
            self.assertTrue(inside)
            return self.start(command)

    def test_it_knows_its_members(self) -> None:
        self.assertEqual(self.cgroup.pids(), [])
        members = {self.member().pid, self.member().pid}
        self.start()
        self.assertEqual(set(self.cgroup.pids()), members)

    def test_who_is_started_there_is_a_member_from_birth_with_all_it_starts(self) -> None:
        process = self.member(["sh", "-c", "setsid env -i sleep 300 & exec sleep 300"])
        self.assertTrue(soon(lambda: len({*self.cgroup.pids()} - {process.pid}) == 1))

    def test_what_we_start_before_and_after_is_none(self) -> None:
        before, _, after = self.start(), self.member(), self.start()
        self.assertEqual({before.pid, after.pid} & {*self.cgroup.pids()}, set())
        self.assert_we_are_not_there()

    def test_what_another_thread_of_ours_starts_meanwhile_is_none(self) -> None:
        others: list[subprocess.Popen] = []
        we_are_in = threading.Event()
        thread = threading.Thread(target=lambda: we_are_in.wait(10) and others.append(self.start()))
        thread.start()
        with self.cgroup.entered():
            we_are_in.set()
            thread.join()
        self.assertEqual((self.cgroup.pids(), [other.poll() for other in others]), ([], [None]))

    def test_we_leave_when_the_start_fails(self) -> None:
        with self.assertRaises(FileNotFoundError):
            self.member(["/no/such/program"])
        self.assertEqual((self.cgroup.pids(), self.cgroup.remove()), ([], True))

    def test_an_interrupt_on_the_way_out_does_not_keep_us_there(self) -> None:
        interrupts = iter([KeyboardInterrupt])

        class Interrupted(io.FileIO):
            def write(self, text: bytes) -> int:
                for interrupt in interrupts:
                    raise interrupt
                return super().write(text)

        with (
            mock.patch.object(cgroup, "open", lambda path, mode, _: Interrupted(path, "w"), create=True),
            self.assertRaises(KeyboardInterrupt),
            self.cgroup.entered(),
        ):
            pass
        self.assert_we_are_not_there()
        self.assertTrue(self.cgroup.remove())

    def test_without_a_descriptor_to_get_out_with_we_do_not_go_in(self) -> None:
        with mock.patch.object(cgroup, "open", side_effect=OSError(errno.EMFILE, "too many"), create=True):
            with self.cgroup.entered() as inside:
                self.assertFalse(inside)
                self.assert_we_are_not_there()

    def test_when_the_last_descriptor_was_used_up_inside_we_get_out_all_the_same(self) -> None:
        with self.cgroup.entered(), mock.patch.object(os, "open", side_effect=OSError(errno.EMFILE, "too many")):
            pass
        self.assert_we_are_not_there()

    def assert_we_are_not_there(self) -> None:
        with open("/proc/thread-self/cgroup") as file:
            self.assertNotIn(os.path.basename(self.cgroup.path), file.read())

    def test_a_thread_of_ours_that_was_kept_there_is_taken_out_and_never_killed(self) -> None:
        self.assertTrue(cgroup._write(os.path.join(self.cgroup.path, "cgroup.threads"), "0"))
        self.assertEqual(self.cgroup.pids(), [])
        self.assertTrue(self.cgroup.remove())

    def test_a_zombie_is_no_member(self) -> None:
        process = self.member()
        process.kill()
        self.assertTrue(soon(lambda: self.cgroup.pids() == []))
        self.assertTrue(self.cgroup.is_empty())

    def test_a_process_of_several_threads_is_one_member(self) -> None:
        program = "import threading, time\nfor _ in range(3): threading.Thread(target=time.sleep, args=(300,)).start()"
        process = self.member(python(program))
        self.assertTrue(soon(lambda: len(list(self.cgroup._threads())) == 4))
        self.assertEqual(self.cgroup.pids(), [process.pid])

    def test_members_of_cgroups_below_are_members_too(self) -> None:
        below = Cgroup(os.path.join(self.cgroup.path, "below"))
        self.assertTrue(below.create())
        with below.entered():
            process = self.start()
        self.assertEqual(self.cgroup.pids(), [process.pid])
        self.cgroup.kill()
        process.wait(10)
        self.assertTrue(soon(self.cgroup.remove))

    def test_all_members_are_killed_and_nobody_else(self) -> None:
        members, other = [self.member() for _ in range(3)], self.start()
        self.assertFalse(self.cgroup.is_empty())
        self.cgroup.kill()
        self.assertEqual([process.wait(10) for process in members], [-9] * 3)
        self.assertIsNone(other.poll())
        self.assertTrue(soon(self.cgroup.is_empty))

    def test_who_is_spared_lives(self) -> None:
        members = [self.member() for _ in range(3)]
        self.cgroup.kill(lambda pids: {members[1].pid} & {*pids})
        self.assertEqual([members[0].wait(10), members[2].wait(10)], [-9] * 2)
        self.assertTrue(soon(lambda: self.cgroup.pids() == [members[1].pid]))

    def test_who_forks_all_the_time_is_killed_with_all_its_forks(self) -> None:
        # One after another, each in a session of its own and gone at once; there is an end to it.
        program = "import os\nfor _ in range(20000):\n    if os.fork(): os._exit(0)\n    os.setsid()"
        self.member(python(program))
        self.assertTrue(soon(lambda: [self.cgroup.kill(), self.cgroup.is_empty()][1]))

    def test_one_with_members_is_not_removed(self) -> None:
        process = self.member()
        self.assertFalse(self.cgroup.remove())
        self.assertEqual(self.cgroup.pids(), [process.pid])
        self.assertTrue(alive(process.pid))

    def test_one_that_is_there_is_not_made_again(self) -> None:
        self.assertFalse(self.cgroup.create())

    def test_one_that_the_kernel_does_not_want_to_be_threaded_is_none(self) -> None:
        other = Cgroup(f"{self.cgroup.path}-other")
        with mock.patch.object(cgroup, "_write", return_value=False):
            self.assertFalse(other.create())
        self.assertFalse(os.path.exists(other.path))


class NoCgroupTests(unittest.TestCase):
    def test_one_that_is_not_there_refuses_everything(self) -> None:
        never = Cgroup("/no/such/cgroup")
        self.assertEqual((never.create(), never.pids(), never.is_empty()), (False, [], False))
        with never.entered() as inside:
            self.assertFalse(inside)
        never.kill()
        self.assertTrue(never.remove(), "there is nothing to remove")


class ParentTests(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="t-")
        self.addCleanup(os.rmdir, self.directory)
        for name in ("procs", "threads"):
            path = os.path.join(self.directory, f"cgroup.{name}")
            with open(path, "w"):
                pass
            self.addCleanup(os.unlink, path)
        for patch in (
            mock.patch.dict(os.environ),
            mock.patch.object(cgroup, "own_directory", lambda: self.directory),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop(cgroup.SWITCH, None)

    def test_it_is_our_own_directory(self) -> None:
        self.assertEqual(cgroup.parent(), self.directory)

    def test_there_is_none_when_turned_off(self) -> None:
        os.environ[cgroup.SWITCH] = "0"
        self.assertIsNone(cgroup.parent())
        os.environ[cgroup.SWITCH] = "1"
        self.assertEqual(cgroup.parent(), self.directory)

    def test_there_is_none_without_cgroup_v2(self) -> None:
        with mock.patch.object(cgroup, "own_directory", return_value=None):
            self.assertIsNone(cgroup.parent())

    def test_there_is_none_where_we_may_not_write(self) -> None:
        for closed in ("", "cgroup.procs", "cgroup.threads"):
            path = os.path.join(self.directory, closed).rstrip("/")
            with (
                self.subTest(closed),
                mock.patch.object(cgroup.os, "access", lambda name, mode, path=path: (name, mode) != (path, os.W_OK)),
            ):
                self.assertIsNone(cgroup.parent())

    def test_there_is_none_on_a_kernel_that_cannot_freeze_one(self) -> None:
        for release, parent in (("4.19.9-amd64", None), ("5.2.0", self.directory), ("6.1.0-rc2", self.directory)):
            with self.subTest(release), mock.patch.object(cgroup.os, "uname") as uname:
                uname.return_value.release = release
                self.assertEqual(cgroup.parent(), parent)


@unittest.skipUnless(sys.platform == "linux", "only Linux has cgroups")
class IsCgroupTests(unittest.TestCase):
    @unittest.skipIf(cgroup.own_directory() is None, "there is no cgroup v2 here")
    def test_it_is_one_where_our_own_is(self) -> None:
        self.assertTrue(cgroup.is_cgroup(cgroup.own_directory()))

    def test_anything_else_is_none(self) -> None:
        for path in ("/", "/no/such", "/\0"):
            self.assertFalse(cgroup.is_cgroup(path))


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
