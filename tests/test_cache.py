import os
import subprocess
import sys
import textwrap
import time
import unittest
from unittest import mock

from caseexec import cache
from caseexec.deadline import Deadline
from tests.helpers.leaks import NothingRemains
from tests.helpers.runs import ROOT


class CacheCase(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.elsewhere = self.make_dir("elsewhere")
        self.enterContext(mock.patch.object(cache, "_ELSEWHERE", self.elsewhere))
        self.given = self.path("cache")
        self.enterContext(mock.patch.dict(os.environ, {"XDG_CACHE_HOME": self.given, "HOME": "/nonexistent"}))

    def entry(self, make=lambda path: None, name: str = "kind-name", **options: object) -> str:
        return cache.entry(name, make, Deadline(30), **options)

    def left(self) -> list[str]:
        return sorted(name for name in os.listdir(f"{self.given}/caseexec") if not name.endswith(".lock"))


class DirectoryTests(CacheCase):
    def test_it_is_where_the_user_wants_it_and_for_the_user_alone(self) -> None:
        self.assertEqual(cache.directory(), f"{self.given}/caseexec")
        self.assertEqual(os.stat(cache.directory()).st_mode & 0o777, 0o700)

    def test_it_is_in_the_users_home_where_nothing_else_is_said(self) -> None:
        home = self.make_dir("home")
        with mock.patch.dict(os.environ, {"HOME": home, "XDG_CACHE_HOME": ""}), mock.patch("sys.platform", "linux"):
            self.assertEqual(cache.directory(), f"{home}/.cache/caseexec")

    def test_on_macos_it_is_where_caches_are_there(self) -> None:
        home = self.make_dir("home")
        with mock.patch.dict(os.environ, {"HOME": home, "XDG_CACHE_HOME": ""}), mock.patch("sys.platform", "darwin"):
            self.assertEqual(cache.directory(), f"{home}/Library/Caches/caseexec")

    def test_without_a_home_it_is_elsewhere(self) -> None:
        with mock.patch.dict(os.environ, {"HOME": "/nonexistent", "XDG_CACHE_HOME": ""}):
            self.assertEqual(cache.directory(), f"{self.elsewhere}/caseexec-cache-{os.getuid()}")

    @unittest.skipIf(os.getuid() == 0, "root can write everywhere")
    def test_where_nothing_can_be_written_it_is_elsewhere(self) -> None:
        os.mkdir(self.given, 0o500)
        self.assertEqual(cache.directory(), f"{self.elsewhere}/caseexec-cache-{os.getuid()}")

    def test_one_that_others_can_enter_is_not_used(self) -> None:
        os.makedirs(f"{self.given}/caseexec")
        os.chmod(f"{self.given}/caseexec", 0o777)
        self.assertEqual(cache.directory(), f"{self.elsewhere}/caseexec-cache-{os.getuid()}")

    def test_a_link_is_not_followed(self) -> None:
        os.symlink(self.make_dir("theirs"), f"{self.elsewhere}/caseexec-cache-{os.getuid()}")
        os.mkdir(self.given)
        os.symlink(self.path("theirs"), f"{self.given}/caseexec")
        with self.assertRaisesRegex(OSError, "is no directory but a link; remove it"):
            cache.directory()

    @unittest.skipIf(os.getuid(), "only root can have things made for others")
    def test_what_root_has_made_for_another_user_is_that_users(self) -> None:
        path = self.entry(uid=65534)
        self.assertEqual(path, f"{self.elsewhere}/caseexec-cache-65534/kind-name")
        self.assertEqual({os.stat(one).st_uid for one in (path, os.path.dirname(path), f"{path}.lock")}, {65534})

    @unittest.skipIf(os.getuid(), "only root can have things made for others")
    def test_what_was_not_given_to_that_user_yet_is_no_strangers(self) -> None:
        os.mkdir(f"{self.elsewhere}/caseexec-cache-65534", 0o700)
        self.assertEqual(os.stat(cache.directory(65534)).st_uid, 65534)

    @unittest.skipIf(os.getuid(), "only root can have things made for others")
    def test_where_root_can_set_no_other_place_none_is_advised(self) -> None:
        path = f"{self.elsewhere}/caseexec-cache-65534"
        os.mkdir(path, 0o700)
        os.chown(path, 1, -1)
        with self.assertRaisesRegex(OSError, f"^{path} belongs to user [^;]*; remove it$"):
            cache.directory(65534)

    @unittest.skipIf(os.getuid(), "only root can have things made for others")
    def test_what_that_user_has_put_in_its_place_is_not_followed(self) -> None:
        victim, made = self.make_dir("victim"), os.mkdir

        def mkdir(path: str, *mode: int) -> None:
            made(path, *mode)
            if ".new-" in path:
                os.rmdir(path)
                os.symlink(victim, path)

        with mock.patch("os.mkdir", mkdir):
            self.entry(uid=65534)
        self.assertEqual(os.stat(victim).st_uid, 0)

    @unittest.skipIf(os.getuid(), "only root can have things made for others")
    def test_a_home_that_is_another_users_is_left_alone(self) -> None:
        home = self.make_dir("home")
        os.chown(home, 65534, -1)
        with mock.patch.dict(os.environ, {"HOME": home, "XDG_CACHE_HOME": home}):
            self.assertEqual(cache.directory(), f"{self.elsewhere}/caseexec-cache-0")
        self.assertEqual(os.listdir(home), [])


class EntryTests(CacheCase):
    def test_it_is_made_once_and_found_again(self) -> None:
        made = []

        def make(path: str) -> None:
            made.append(path)
            self.assertFalse(os.path.exists(f"{self.given}/caseexec/kind-name"), "it is there before it is whole")
            with open(f"{path}/file", "w") as file:
                file.write("whole")

        self.assertEqual(self.entry(make), self.entry(make))
        self.assertEqual(len(made), 1)
        with open(f"{self.entry(make)}/file") as file:
            self.assertEqual(file.read(), "whole")

    def test_of_one_that_could_not_be_made_nothing_is_left(self) -> None:
        def fail(path: str) -> None:
            os.mkdir(f"{path}/half")
            raise ValueError("no")

        with self.assertRaisesRegex(ValueError, "no"):
            self.entry(fail)
        self.assertEqual(self.left(), [])
        self.assertTrue(os.path.isdir(self.entry()))

    def test_what_a_killed_process_has_left_is_not_used_but_removed(self) -> None:
        program = """if True:
            import os, signal
            from caseexec import cache
            from caseexec.deadline import Deadline
            cache.entry("kind-name", lambda path: os.kill(os.getpid(), signal.SIGKILL), Deadline(30))
        """
        environment = {**os.environ, "PYTHONPATH": ROOT}
        subprocess.run([sys.executable, "-c", program], env=environment, check=False)
        self.assertRegex(" ".join(self.left()), r"^kind-name\.new-\w+$")
        self.assertEqual(os.listdir(self.entry()), [])
        self.assertEqual(self.left(), ["kind-name"])

    def test_one_that_has_lost_something_is_made_anew(self) -> None:
        def make(path: str) -> None:
            os.makedirs(f"{path}/inner/empty")

        os.rmdir(f"{self.entry(make)}/inner/empty")
        self.assertTrue(os.path.isdir(f"{self.entry(make)}/inner/empty"))
        os.unlink(f"{self.entry(make)}.lock")
        self.entry(make)
        self.assertEqual(self.entry(self.fail), f"{self.given}/caseexec/kind-name")

    def test_one_that_lasts_may_change(self) -> None:
        os.mkdir(f"{self.entry(lasts=True)}/inner")
        self.assertEqual(os.listdir(self.entry(self.fail, lasts=True)), ["inner"])

    def test_of_eight_processes_that_need_it_at_once_one_makes_it(self) -> None:
        program = textwrap.dedent("""
            import os, sys
            from caseexec import cache
            from caseexec.deadline import Deadline
            sys.stdin.read()
            def make(path):
                print("made", flush=True)
                open(f"{path}/file", "w").close()
            assert os.listdir(cache.entry("kind-name", make, Deadline(60))) == ["file"]
        """)
        environment = {**os.environ, "PYTHONPATH": ROOT}
        start = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
        processes = [subprocess.Popen([sys.executable, "-c", program], **start) for _ in range(8)]
        for process in processes:
            process.stdin.close()
        made = ""
        for process in processes:
            with process:
                made += process.stdout.read()
        self.assertEqual([process.returncode for process in processes], [0] * 8)
        self.assertEqual(made, "made\n")

    def test_who_waits_for_another_gives_up_in_time(self) -> None:
        def make(path: str) -> None:
            with self.assertRaises(TimeoutError):
                cache.entry("kind-name", self.fail, Deadline(0.01))

        self.entry(make)

    def test_one_that_nobody_has_used_for_a_month_goes_when_another_is_made(self) -> None:
        month = 31 * 24 * 3600
        for name in ("kind-old", "kind-used", "other-old"):
            self.entry(name=name)
        lasting = self.entry(name="kept-kind", lasts=True)
        for name in (*self.left(), "kept-kind"):
            os.utime(f"{self.given}/caseexec/{name}", times=(time.time() - month,) * 2)
        self.entry(name="kind-used")
        self.entry(name="kind-new")
        self.entry(name="kept-new", lasts=True)
        self.assertEqual(self.left(), ["kept-kind", "kept-new", "kind-new", "kind-used", "other-old"])
        self.assertTrue(os.path.isdir(lasting))
