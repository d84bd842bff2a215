import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import unittest
from unittest import mock

from caseexec import processes, reaper
from caseexec.registry import reaping
from tests.helpers.leaks import NothingRemains, alive, quickly, soon
from tests.helpers.programs import SLEEP, python
from tests.helpers.runs import ROOT

PROGRAM = [sys.executable, "-I", "-S", reaper.__file__]
# As where the system does not wake us at the end of a process.
WITHOUT_PIDFD = [
    *[sys.executable, "-I", "-S", "-c"],
    "import os, runpy, sys; vars(os).pop('pidfd_open', None); runpy.run_path(sys.argv.pop(1), run_name='__main__')",
    reaper.__file__,
]


class ReaperCase(NothingRemains):
    """What the program does is seen by the directories that it removes when it ends."""

    def setUp(self) -> None:
        super().setUp()
        self.libraries = [*reaping._libraries()]
        self.about = json.dumps({"moment": processes.table().moment()})

    def begin(self, program=PROGRAM, run: int | None = None, cgroups: str = "", keeper: int = 0) -> subprocess.Popen:
        about = [cgroups, self.about, *self.libraries]
        command = [*program, "cafe", str(run or os.getpid()), str(keeper), *about]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdin.close)
        return process

    def directory(self, name: str) -> tuple[str, bytes]:
        """A directory, and the line that tells of it."""
        path = self.make_dir(f"caseexec-{name}")
        return path, f"{name}\t{json.dumps({'paths': [path]})}\n".encode()

    def tell(self, process: subprocess.Popen, *lines: bytes) -> None:
        process.stdin.write(b"".join(lines))
        process.stdin.flush()

    def end(self, process: subprocess.Popen) -> None:
        process.stdin.close()
        self.assertEqual(process.wait(20), 0)

    def booted(self, process: subprocess.Popen) -> None:
        """Wait until it waits."""
        self.assertTrue(soon(lambda: os.readlink(f"/proc/{process.pid}/cwd") == "/"))


class PipeTests(ReaperCase):
    def test_while_the_run_lives_it_waits(self) -> None:
        path, line = self.directory("a")
        process = self.begin()
        self.tell(process, line)
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(0.2)
        self.assertTrue(os.path.exists(path))

    def test_at_the_end_it_removes_what_it_was_told_of(self) -> None:
        path, line = self.directory("a")
        process = self.begin()
        self.tell(process, line)
        self.end(process)
        self.assertFalse(os.path.exists(path))

    def test_what_was_taken_back_is_not_touched(self) -> None:
        (kept, first), (gone, second) = self.directory("kept"), self.directory("gone")
        process = self.begin()
        self.tell(process, first, second, b"kept\t\n", b"never\t\n")
        self.end(process)
        self.assertEqual((os.path.exists(kept), os.path.exists(gone)), (True, False))

    def test_the_last_word_of_a_key_counts(self) -> None:
        (former, first), (later, second) = self.directory("former"), self.directory("later")
        process = self.begin()
        self.tell(process, first.replace(b"former", b"key", 1), second.replace(b"later", b"key", 1))
        self.end(process)
        self.assertEqual((os.path.exists(former), os.path.exists(later)), (True, False))

    def test_a_line_that_comes_in_pieces_is_read_whole(self) -> None:
        path, line = self.directory("a")
        process = self.begin()
        self.booted(process)
        for piece in (line[:5], line[5:-1], line[-1:]):
            self.tell(process, piece)
        self.end(process)
        self.assertFalse(os.path.exists(path))

    def test_the_torn_line_of_a_run_that_was_killed_is_ignored(self) -> None:
        (gone, whole), (kept, torn) = self.directory("gone"), self.directory("kept")
        process = self.begin()
        self.tell(process, whole, torn[:-1])
        self.end(process)
        self.assertEqual((os.path.exists(kept), os.path.exists(gone)), (True, False))

    def test_it_reads_more_than_a_pipe_holds(self) -> None:
        path, line = self.directory("a")
        process = self.begin()
        with quickly(self, 20):
            self.tell(process, b"x\t{}\n" * 100_000, b'long\t{"paths": ["' + b"x" * 300_000 + b'"]}\n', line)
        self.end(process)
        self.assertFalse(os.path.exists(path))

    def test_without_anything_to_do_it_ends_at_once_and_loads_nothing(self) -> None:
        program = "import runpy, sys\ntry: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        program += "finally: assert not {'caseexec', 'json', 'subprocess'} & {*sys.modules}, sys.modules"
        process = self.begin([sys.executable, "-I", "-S", "-c", program, reaper.__file__])
        self.tell(process, b"a\t{}\n", b"a\t\n")
        self.end(process)


class RunsEndTests(ReaperCase):
    RUN = """if True:
        import os, subprocess, sys
        read, write = os.pipe()
        holder = os.fork()
        if holder == 0:
            # A fork of the run keeps the pipe open, and everything else but the run's output is closed.
            os.close(1)
            os.execvp('sleep', ['sleep', '300']) if os.set_inheritable(write, True) is None else None
        command = [*sys.argv[4:], 'cafe', str(os.getpid()), '0', '', sys.argv[1]]
        process = subprocess.Popen(command, stdin=read, stdout=subprocess.DEVNULL, start_new_session=True)
        os.write(write, sys.argv[2].encode())
        while b'python' not in open(f'/proc/{process.pid}/cmdline', 'rb').read():
            pass
        while sys.argv[3] == 'wait' and os.readlink(f'/proc/{process.pid}/cwd') != '/':
            pass
        os.write(1, b'%d %d' % (holder, process.pid))
        os._exit(9)
    """

    def assert_it_ends_with_the_run(self, program: list[str], when: str) -> None:
        path, line = self.directory("a")
        command = [sys.executable, "-c", self.RUN, self.about, line.decode(), when, *program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT}) as run:
            holder, pid = map(int, run.stdout.read().split())
        self.addCleanup(os.kill, holder, signal.SIGKILL)
        self.assertTrue(soon(lambda: not alive(pid)), "it waits for the fork")
        self.assertFalse(os.path.exists(path))
        self.assertTrue(alive(holder), "a fork of the run that is no service")

    @unittest.skipUnless(hasattr(os, "pidfd_open"), "the system does not wake us at the end of a process")
    def test_it_ends_with_the_run_although_a_fork_keeps_the_pipe(self) -> None:
        self.assert_it_ends_with_the_run(PROGRAM, "wait")

    def test_so_it_does_where_nothing_wakes_it(self) -> None:
        self.assert_it_ends_with_the_run(WITHOUT_PIDFD, "wait")

    def test_so_it_does_when_the_run_ended_before_it_could_look(self) -> None:
        self.assert_it_ends_with_the_run(PROGRAM, "go")


class KeepersEndTests(ReaperCase):
    """The run lives, but whose worker it is does not."""

    def test_it_ends_with_the_process_whose_worker_the_run_is(self) -> None:
        path, line = self.directory("a")
        keeper = subprocess.Popen(SLEEP)
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        process = self.begin(keeper=keeper.pid)
        self.tell(process, line)
        self.booted(process)
        self.assertTrue(os.path.exists(path))
        keeper.kill()
        self.assertEqual(process.wait(20), 0)
        self.assertFalse(os.path.exists(path))

    def test_so_it_does_when_that_had_ended_before_it_could_look(self) -> None:
        _, line = self.directory("a")
        keeper = subprocess.Popen(["true"])
        keeper.wait()
        process = self.begin(keeper=keeper.pid)
        self.tell(process, line)
        self.assertEqual(process.wait(20), 0)


class SelfTests(ReaperCase):
    def test_signals_that_ask_it_to_end_do_not(self) -> None:
        path, line = self.directory("a")
        process = self.begin()
        self.tell(process, line)
        self.booted(process)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            process.send_signal(number)
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(0.1)
        self.end(process)
        self.assertFalse(os.path.exists(path))

    def test_the_stop_commands_do_not_inherit_its_deafness(self) -> None:
        program = "kill -TERM $$; kill -INT $$; echo deaf >$0"
        entry = {"leader": None, "stop_signal": 15, "kill_signal": 9, "supervised": False, "cgroup": "",
                 "stop_command": [["sh", "-c", program, self.path("deaf")], False, "/", {}]}  # fmt: skip
        process = self.begin()
        self.tell(process, f"cafe.1\t{json.dumps(entry)}\n".encode())
        self.end(process)
        self.assertFalse(os.path.exists(self.path("deaf")))

    def test_services_are_ended(self) -> None:
        environment = {**os.environ, processes.MARK: "cafe.1"}
        service = subprocess.Popen(SLEEP, env=environment, start_new_session=True)
        self.addCleanup(service.wait)
        self.addCleanup(service.kill)
        process = self.begin()
        self.tell(process, b"record\t{}\n")
        self.end(process)
        self.assertEqual(service.wait(10), -signal.SIGTERM)

    def test_it_stays_small(self) -> None:
        process = self.begin()
        self.booted(process)
        with open(f"/proc/{process.pid}/status") as file:
            resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        self.assertLess(resident, 12 * 1024, "KiB")

    def test_it_finds_psutil_where_the_run_has_it(self) -> None:
        # As on a system that has no /proc, where it is needed.
        program = """if True:
            import os, runpy, sys
            exists = os.path.exists
            os.path.exists = lambda path: path != '/proc/self/stat' and exists(path)
            runpy.run_path(sys.argv.pop(1), run_name='__main__')
            assert 'psutil' in sys.modules
        """
        path, line = self.directory("a")
        with mock.patch.object(self, "about", json.dumps({"moment": processes.Portable().moment()})):
            process = self.begin([sys.executable, "-I", "-S", "-c", program, reaper.__file__])
        self.tell(process, line)
        self.end(process)
        self.assertFalse(os.path.exists(path))

    def test_empty_cgroups_of_the_run_are_removed_and_no_others(self) -> None:
        # Ordinary directories: an empty one is removed as a cgroup is.
        cgroups = self.make_dir("cgroups")
        for name in ("caseexec-cafe.1", "caseexec-cafe.22", "caseexec-cafe1.1", "caseexec-beef.1", "x-cafe.1"):
            os.mkdir(os.path.join(cgroups, name))
        os.mkdir(os.path.join(cgroups, "caseexec-cafe.3"))
        os.mkdir(os.path.join(cgroups, "caseexec-cafe.3", "inhabited"))
        self.end(self.begin(cgroups=cgroups))
        self.assertEqual(
            sorted(os.listdir(cgroups)), ["caseexec-beef.1", "caseexec-cafe.3", "caseexec-cafe1.1", "x-cafe.1"]
        )


@unittest.skipUnless(hasattr(os, "pidfd_open"), "without descriptors of processes nothing is killed then")
class AloneTests(ReaperCase):
    """The package went with the run, as a checkout or a virtual environment that was thrown away."""

    def service(self, mark: str) -> tuple[subprocess.Popen, bytes]:
        """A service with a child, and the line that tells of it."""
        service = subprocess.Popen(["sh", "-c", "sleep 300 & exec sleep 300"], start_new_session=True)
        self.addCleanup(service.wait)
        self.addCleanup(service.kill)
        self.assertTrue(soon(lambda: processes.table().children(service.pid)))
        leader = processes.table().status(service.pid).identity
        return service, f"{mark}\t{json.dumps({'leader': leader})}\n".encode()

    def end_alone(self, program: list[str], *lines: bytes) -> None:
        alone = shutil.copy(reaper.__file__, self.make_dir("alone"))
        self.libraries = []  # Beside psutil there may be an installed caseexec.
        process = self.begin([alone if word == reaper.__file__ else word for word in program])
        self.tell(process, *lines)
        self.end(process)

    def test_the_groups_of_the_leaders_that_are_there_are_killed(self) -> None:
        (service, line), (stranger, _) = self.service("cafe.1"), self.service("cafe.2")
        family = [service.pid, *processes.table().children(service.pid)]
        wrong = json.dumps({"leader": [stranger.pid, 1]}).encode()
        torn = b'{"leader": [1'
        self.end_alone(PROGRAM, b"cafe.3\t%s\n" % torn, b"cafe.2\t%s\n" % wrong, line)
        self.assertEqual(service.wait(10), -signal.SIGKILL)
        self.assertTrue(soon(lambda: not any(map(alive, family))))
        self.assertTrue(alive(stranger.pid))
        for pid in processes.table().children(stranger.pid):
            os.kill(pid, signal.SIGKILL)

    def test_a_kernel_that_cannot_signal_a_group_so_lets_the_leader_be_killed(self) -> None:
        service, line = self.service("cafe.1")
        children = processes.table().children(service.pid)
        program = """if True:
            import runpy, signal, sys
            send = signal.pidfd_send_signal
            def refuse(pidfd, number, info=None, flags=0):
                if flags:
                    raise OSError(22, 'Invalid argument')
                send(pidfd, number, info, flags)
            signal.pidfd_send_signal = refuse
            runpy.run_path(sys.argv.pop(1), run_name='__main__')
        """
        self.end_alone([sys.executable, "-I", "-S", "-c", program, reaper.__file__], line)
        self.assertEqual(service.wait(10), -signal.SIGKILL)
        for pid in children:
            os.kill(pid, signal.SIGKILL)


class FollowTests(unittest.TestCase):
    """The same in this process, where what the system does can be exchanged."""

    def follow(self, data: bytes, run: int) -> dict[bytes, bytes]:
        read, write = os.pipe()
        self.addCleanup(os.close, write)
        os.write(write, data)
        keep = os.dup(0)
        try:
            os.dup2(read, 0)
            os.close(read)
            return reaper._follow(run, 0)
        finally:
            os.dup2(keep, 0)
            os.close(keep)

    def test_what_is_in_the_pipe_when_the_run_ends_is_read_to_the_last(self) -> None:
        # More than is read at once, and nobody closes the pipe.
        data = b"".join(b"%d\t{}\n" % number for number in range(7000))
        process = subprocess.Popen(python("pass"))
        with mock.patch.object(os, "getppid", return_value=process.pid):
            ended = threading.Thread(target=process.wait)
            found = self.follow(data[:60_000].rpartition(b"\n")[0] + b"\n", process.pid)
            ended.start()
            ended.join()
        self.assertGreater(len(found), 6000)
