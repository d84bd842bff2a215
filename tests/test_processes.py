import os
import signal
import subprocess
import sys
import threading
import unittest
from unittest import mock

from caseexec import processes
from caseexec.processes import procfs
from tests.helpers.leaks import soon
from tests.helpers.programs import CHILD_LEAVES, SLEEP, python


class TableTests:
    """What every table must tell."""

    table: processes.ProcessTable

    def start(self, command=SLEEP, mark: str | None = None) -> subprocess.Popen:
        environment = {**os.environ, **({processes.MARK: mark} if mark else {})}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_a_process_is_seen_with_its_parent_and_group(self) -> None:
        process = self.start()
        status = self.table.status(process.pid)
        self.assertEqual((status.identity.pid, status.parent, status.group, status.zombie),
                         (process.pid, os.getpid(), process.pid, False))  # fmt: skip

    def test_a_zombie_is_seen_as_one_and_then_not_at_all(self) -> None:
        process = self.start()
        process.kill()
        self.assertTrue(soon(lambda: self.table.status(process.pid).zombie))
        process.wait()
        self.assertIsNone(self.table.status(process.pid))

    def test_a_mark_is_read_whole(self) -> None:
        marked, plain = self.start(mark="run.12"), self.start()
        # While the kernel loads a program its environment is empty.
        self.assertTrue(soon(lambda: self.table.mark(marked.pid) != "" and self.table.mark(plain.pid) != ""))
        self.assertEqual((self.table.mark(marked.pid), self.table.mark(plain.pid)), ("run.12", None))

    def test_an_empty_environment_is_told_from_one_without_the_mark(self) -> None:
        process = subprocess.Popen(["/bin/sleep", "300"], env={})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(self.table.mark(process.pid), "")

    def test_children_are_seen(self) -> None:
        process = self.start()
        self.assertIn(process.pid, self.table.children(os.getpid()))
        self.assertEqual(self.table.children(process.pid), [])

    def test_who_appeared_since_a_moment(self) -> None:
        earlier = self.start()
        moment = self.table.moment()
        later = self.start()
        self.assertIn(later.pid, self.table.since(moment))
        if isinstance(self.table, processes.Procfs):
            self.assertNotIn(earlier.pid, self.table.since(moment))

    def test_a_signal_reaches_the_very_process_and_no_later_one(self) -> None:
        process = self.start()
        identity = self.table.status(process.pid).identity
        self.assertFalse(self.table.send(identity._replace(born=identity.born - 1), signal.SIGKILL))
        self.assertIsNone(process.poll())
        self.assertTrue(self.table.send(identity, signal.SIGKILL))
        self.assertEqual(process.wait(10), -signal.SIGKILL)
        self.assertFalse(self.table.send(identity, signal.SIGKILL))

    def test_the_command_line_of_a_process(self) -> None:
        process = self.start()
        self.assertTrue(soon(lambda: self.table.command(process.pid) == process.args))
        process.kill()
        process.wait()
        self.assertEqual(self.table.command(process.pid), [])


@unittest.skipUnless(sys.platform == "linux", "only Linux has this table")
class ProcfsTests(TableTests, unittest.TestCase):
    table = processes.Procfs()

    def test_a_name_with_blanks_and_parentheses_does_not_confuse_it(self) -> None:
        program = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a) Z 1 (b'); print('named'); time.sleep(300)"
        process = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout.readline()
        self.assertEqual(self.table.status(process.pid).parent, os.getpid())

    def test_a_process_whose_main_thread_has_ended_is_no_zombie(self) -> None:
        program = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(300,)).start(); "
        process = subprocess.Popen([sys.executable, "-c", program + "ctypes.CDLL(None).pthread_exit(None)"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def state() -> str:
            with open(f"/proc/{process.pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0]

        self.assertTrue(soon(lambda: state() == "Z"))
        self.assertFalse(self.table.status(process.pid).zombie)

    def test_where_only_processes_are_shown_everybody_is_looked_at(self) -> None:
        # /proc mounted with subset=pid.
        read = procfs._read

        def shown(path: str) -> bytes:
            if path in ("/proc/loadavg", "/proc/stat"):
                raise FileNotFoundError(path)
            return read(path)

        with mock.patch.object(procfs, "_read", shown):
            moment = self.table.moment()
            self.assertIn(os.getpid(), self.table.since(moment))
            self.assertFalse(self.table.vanished_since(moment))

    def test_threads_are_not_taken_for_processes(self) -> None:
        moment = self.table.moment()
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(done.set)
        self.assertNotIn(thread.native_id, list(self.table.since(moment)))

    def test_when_the_pids_may_have_begun_anew_everybody_is_looked_at(self) -> None:
        process = self.start()
        last = self.table._last_pid()
        # Far above: others may fork meanwhile.
        wrapped = processes.Moment(last_pid=sys.maxsize, forks=self.table._forks(), born=0)
        self.assertIn(process.pid, self.table.since(wrapped))
        all_round = processes.Moment(last_pid=last, forks=self.table._forks() - 40_000, born=0)
        self.assertIn(process.pid, self.table.since(all_round))

    def test_after_many_forks_those_behind_the_moment_are_found_all_the_same(self) -> None:
        process = self.start()
        last = self.table._last_pid()
        moment = processes.Moment(last_pid=max(0, process.pid - 1000), forks=0, born=0)
        with mock.patch.object(self.table, "_forks", return_value=last - moment.last_pid):
            self.assertIn(process.pid, self.table.since(moment))

    def test_on_a_small_machine_all_are_listed_and_on_a_large_one_numbers_are_tried_to_the_same_end(self) -> None:
        process = self.start()
        # As if nobody else had forked meanwhile.
        moment = processes.Moment(last_pid=process.pid - 1, forks=0, born=0)
        for threads, lists in ((0, 1), (1_000_000, 0)):
            with (
                mock.patch.object(self.table, "_last_pid", return_value=process.pid),
                mock.patch.object(self.table, "_forks", return_value=1),
                mock.patch.object(self.table, "_threads", return_value=threads),
                mock.patch.object(self.table, "everybody", wraps=self.table.everybody) as everybody,
            ):
                self.assertIn(process.pid, self.table.since(moment))
                self.assertEqual(everybody.call_count, lists)

    def test_without_the_kernels_list_of_children_they_are_found_by_their_parent(self) -> None:
        process = self.start()
        self.assertIn(process.pid, self.table._children_by_listing(os.getpid()))

    def test_without_pidfd_a_signal_is_sent_by_pid(self) -> None:
        process = self.start()
        with mock.patch("os.pidfd_open", side_effect=OSError):
            self.assertTrue(self.table.send(self.table.status(process.pid).identity, signal.SIGKILL))
        self.assertEqual(process.wait(10), -signal.SIGKILL)

    def test_the_holder_of_a_socket_is_found(self) -> None:
        import socket

        with socket.socket() as sock:
            inode = os.fstat(sock.fileno()).st_ino
            self.assertEqual(list(processes.holders(self.table, inode, None)), [os.getpid()])


class PortableTests(TableTests, unittest.TestCase):
    table = processes.Portable()


class DescribeTests(unittest.TestCase):
    def test_a_process_is_described_by_pid_command_and_user(self) -> None:
        import psutil

        owner = processes.describe(os.getpid())
        self.assertEqual((owner.pid, owner.user), (os.getpid(), psutil.Process().username()))
        self.assertIn("python", owner.command)

    def test_one_that_is_gone_is_described_by_its_pid(self) -> None:
        process = subprocess.Popen(["true"])
        process.wait()
        self.assertEqual(processes.describe(process.pid).command, "")

    def test_where_a_process_is_can_be_seen_while_it_lives(self) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/usr") as process:
            self.assertEqual(processes.working_directory(process.pid), "/usr")
        self.assertIsNone(processes.working_directory(process.pid))

    def test_the_tree_below_a_process(self) -> None:
        process = subprocess.Popen(python("import os, time\nfor _ in range(3): os.fork() or os.fork()\ntime.sleep(300)"),
                                   start_new_session=True)  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(lambda: os.killpg(process.pid, signal.SIGKILL))
        self.assertTrue(soon(lambda: len(list(processes.tree(processes.table(), process.pid))) == 26), CHILD_LEAVES)
