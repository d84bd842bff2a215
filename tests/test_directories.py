import os
import shutil
import stat
import tempfile
import unittest

from caseexec.directories import remove_tree, working_directory
from tests.helpers.leaks import NothingRemains

NOBODY = 65534


class RemoveTreeTests(unittest.TestCase):
    def setUp(self) -> None:
        self.tmp = tempfile.mkdtemp(prefix="t-")
        self.addCleanup(shutil.rmtree, self.tmp)

    def make(self, *names: str) -> str:
        """A directory with files of these names in it."""
        path = os.path.join(self.tmp, "tree")
        for name in names:
            os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
            with open(os.path.join(path, name), "w"):
                pass
        return path

    def as_ordinary_user(self, act) -> bool:
        """What a function returns that is called in a process of an ordinary user, who owns the directory."""
        if os.getuid() == 0:
            for directory, names, files in os.walk(self.tmp):
                for name in (directory, *(os.path.join(directory, name) for name in [*names, *files])):
                    os.lchown(name, NOBODY, NOBODY)
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                os._exit(10 + act())
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.assertIn(code, (10, 11), "it raised")
        return code == 11

    def test_a_directory_goes_with_all_that_is_in_it(self) -> None:
        path = self.make("a/b/c", "d")
        self.assertTrue(remove_tree(path))
        self.assertEqual(os.listdir(self.tmp), [])

    def test_a_file_goes_too(self) -> None:
        path = os.path.join(self.make("a"), "a")
        self.assertTrue(remove_tree(path))
        self.assertFalse(os.path.exists(path))

    def test_what_is_not_there_is_gone(self) -> None:
        self.assertTrue(remove_tree(os.path.join(self.tmp, "never")))

    def test_a_link_goes_and_what_is_behind_it_stays(self) -> None:
        path = self.make("a/b")
        for target in (path, os.path.join(path, "a/b"), "/no/where"):
            link = os.path.join(self.tmp, "link")
            os.symlink(target, link)
            self.assertTrue(remove_tree(link))
            self.assertFalse(os.path.lexists(link))
        self.assertTrue(os.path.exists(os.path.join(path, "a/b")))

    def test_behind_a_link_inside_nothing_is_removed_and_no_permission_changed(self) -> None:
        path, outside = self.make("closed/inner/file"), os.path.join(self.tmp, "outside")
        os.mkdir(outside)
        with open(os.path.join(outside, "kept"), "w"):
            pass
        # In a directory that is not removed at the first attempt.
        os.symlink(outside, os.path.join(path, "closed/link"))
        os.chmod(os.path.join(path, "closed"), 0)
        os.chmod(outside, 0o500)
        self.addCleanup(os.chmod, outside, 0o700)
        self.assertTrue(self.as_ordinary_user(lambda: remove_tree(path)))
        self.assertEqual((os.listdir(outside), stat.S_IMODE(os.stat(outside).st_mode)), (["kept"], 0o500))

    def test_permissions_that_were_taken_away_are_given_back(self) -> None:
        path = self.make("closed/inner/file")
        os.chmod(os.path.join(path, "closed/inner"), 0o500)
        os.chmod(os.path.join(path, "closed"), 0)
        os.chmod(path, 0)
        self.assertTrue(self.as_ordinary_user(lambda: remove_tree(path)))
        self.assertFalse(os.path.exists(path))

    def test_what_cannot_be_removed_is_told(self) -> None:
        path = self.make("a")
        os.chmod(self.tmp, 0o500)
        self.assertFalse(self.as_ordinary_user(lambda: remove_tree(path)))
        os.chmod(self.tmp, 0o700)
        self.assertTrue(os.path.exists(path))

    def test_a_file_that_cannot_be_removed_is_told(self) -> None:
        path = self.make("a")
        os.chmod(path, 0o500)
        self.assertFalse(self.as_ordinary_user(lambda: remove_tree(os.path.join(path, "a"))))
        os.chmod(path, 0o700)


class InItsPlaceTests(NothingRemains):
    def test_a_pipe_in_the_place_of_a_directory_is_removed(self) -> None:
        os.mkfifo(self.path("pipe"))
        self.assertTrue(remove_tree(self.path("pipe")))
        self.assertFalse(os.path.lexists(self.path("pipe")))

    def test_a_tree_of_any_depth_is_removed(self) -> None:
        deep = self.make_dir("deep")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(deep)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        os.chdir("/")
        self.assertTrue(remove_tree(deep))
        self.assertFalse(os.path.exists(deep))


class WorkingDirectoryTests(NothingRemains):
    def test_one_that_was_removed_is_the_topmost(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.make_dir("gone"))
        self.assertEqual(working_directory(), os.path.realpath(self.path("gone")))
        os.rmdir(self.path("gone"))
        self.assertEqual(working_directory(), "/")
