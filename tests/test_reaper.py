import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import unittest
from unittest import mock

from caseexec import OutputExecutor, SimpleExecutor, processes, reaper
from caseexec.deadline import Deadline
from caseexec.registry import StopPlan, current_run, reaping
from tests.helpers.leaks import RUN_ID, NothingRemains, alive, on_disk, quickly, soon
from tests.helpers.programs import SLEEP, python
from tests.helpers.runs import ROOT

PROGRAM = [sys.executable, "-I", "-S", reaper.__file__]
# As where the system does not wake us at the end of a process.
WITHOUT_PIDFD = [
    *[sys.executable, "-I", "-S", "-c"],
    "import os, runpy, sys; vars(os).pop('pidfd_open', None); runpy.run_path(sys.argv.pop(1), run_name='__main__')",
    reaper.__file__,
]


def kibibytes(process: subprocess.Popen) -> int:
    """The resident memory of a process."""
    with open(f"/proc/{process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class ReaperCase(NothingRemains):
    """What the program does is seen by the directories that it removes when it ends."""

    def setUp(self) -> None:
        super().setUp()
        self.libraries = [*reaping._libraries()]
        self.about = json.dumps({"moment": processes.table().moment()})

    def begin(self, program=PROGRAM, run: int | None = None, cgroups: str = "", keeper: int = 0) -> subprocess.Popen:
        about = [cgroups, self.about, *self.libraries]
        command = [*program, RUN_ID, str(run or os.getpid()), str(keeper), *about]
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
        entry = {"leader": [2**22 + 1, 0], "stop_signal": 15, "kill_signal": 9, "supervised": False, "cgroup": "",
                 "stop_command": [["sh", "-c", program, self.path("deaf")], False, "/", {}]}  # fmt: skip
        process = self.begin()
        self.tell(process, f"{RUN_ID}.1\t{json.dumps(entry)}\n".encode())
        self.end(process)
        self.assertFalse(os.path.exists(self.path("deaf")))

    def test_services_are_ended(self) -> None:
        environment = {**os.environ, processes.MARK: f"{RUN_ID}.1"}
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
        self.assertLess(kibibytes(process), 12 * 1024)

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
        others = ["caseexec-beef.1", f"caseexec-{RUN_ID}1.1", f"x-{RUN_ID}.1"]
        cgroups = self.make_dir("cgroups")
        for name in (f"caseexec-{RUN_ID}.1", f"caseexec-{RUN_ID}.22", *others):
            os.mkdir(os.path.join(cgroups, name))
        os.mkdir(os.path.join(cgroups, f"caseexec-{RUN_ID}.3"))
        os.mkdir(os.path.join(cgroups, f"caseexec-{RUN_ID}.3", "inhabited"))
        self.end(self.begin(cgroups=cgroups))
        self.assertEqual(sorted(os.listdir(cgroups)), sorted([*others, f"caseexec-{RUN_ID}.3"]))


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
        (service, line), (stranger, _) = self.service(f"{RUN_ID}.1"), self.service(f"{RUN_ID}.2")
        family = [service.pid, *processes.table().children(service.pid)]
        wrong = json.dumps({"leader": [stranger.pid, 1]})
        torn = '{"leader": [1'
        self.end_alone(PROGRAM, f"{RUN_ID}.3\t{torn}\n".encode(), f"{RUN_ID}.2\t{wrong}\n".encode(), line)
        self.assertEqual(service.wait(10), -signal.SIGKILL)
        self.assertTrue(soon(lambda: not any(map(alive, family))))
        self.assertTrue(alive(stranger.pid))
        for pid in processes.table().children(stranger.pid):
            os.kill(pid, signal.SIGKILL)

    def test_a_kernel_that_cannot_signal_a_group_so_lets_the_leader_be_killed(self) -> None:
        service, line = self.service(f"{RUN_ID}.1")
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


class LogTests(ReaperCase):
    LIMIT = 128 * 1024

    def log(self, name: str) -> tuple[str, bytes]:
        """A log that is too large, and the line that tells of it."""
        path = self.path(f"{name}.log")
        with open(path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(b"x" * 3 * self.LIMIT)
        return path, self.line(ascii(name), path)

    def line(self, key: str, *paths: str, limit: int = LIMIT) -> bytes:
        return f"{key}\t{{}}{reaping._watched(limit, paths)}\n".encode()

    def trimmed(self, path: str) -> bool:
        return on_disk(path) <= self.LIMIT

    def write_more(self, path: str) -> None:
        with open(path, "ab") as file:
            file.write(b"y" * 2 * self.LIMIT)

    def test_logs_are_trimmed_as_often_as_it_takes(self) -> None:
        path, line = self.log("a")
        process = self.begin()
        self.tell(process, line)
        for _ in range(5):
            self.assertTrue(soon(lambda: self.trimmed(path)))
            self.write_more(path)

    def test_so_are_two_of_one_service_and_those_that_it_is_told_of_later(self) -> None:
        paths = [self.log(name)[0] for name in ("a", "b", "c", "d")]
        process = self.begin()
        self.tell(process, self.line("first", *paths[:2]))
        self.assertTrue(soon(lambda: all(map(self.trimmed, paths[:2]))))
        self.tell(process, b"first\t\n")
        for number, path in enumerate(paths[2:]):
            self.tell(process, self.line(f"key {number}", path))
            self.assertTrue(soon(lambda path=path: self.trimmed(path)))
            self.tell(process, b"key %d\t\n" % number)

    def test_a_log_that_was_taken_back_is_left_alone(self) -> None:
        first, second = self.log("first"), self.log("second")
        process = self.begin()
        self.tell(process, first[1], second[1])
        self.assertTrue(soon(lambda: self.trimmed(first[0]) and self.trimmed(second[0])))
        self.tell(process, b"'first'\t\n")
        # It has heard that before it hears of the third.
        third = self.log("third")
        self.tell(process, third[1])
        self.assertTrue(soon(lambda: self.trimmed(third[0])))
        for path in (first[0], second[0]):
            self.write_more(path)
        self.assertTrue(soon(lambda: self.trimmed(second[0])))
        self.assertFalse(self.trimmed(first[0]))

    def test_a_path_may_have_any_sign(self) -> None:
        process = self.begin()
        for name in (b"\xff", b"a\tb", b"a\nb", b"a b", "\U0001f600".encode()):
            with self.subTest(name):
                path, line = self.log(os.fsdecode(name))
                self.tell(process, line)
                self.assertTrue(soon(lambda path=path: self.trimmed(path)))

    def test_what_is_no_log_or_not_there_is_passed_over(self) -> None:
        target, _ = self.log("target")
        os.symlink(target, self.path("link"))
        path, line = self.log("z")
        process = self.begin()
        lines = [b"a\t{}\t\n", b"b\t{}\t \n", b"c\t{}\t1\n", b"d\t{}\tx y\n", b"e\t{}\t1 xy\n"]
        self.tell(process, *lines, self.line("f", self.path("link"), self.path("not there"), self.tmp), line)
        self.assertTrue(soon(lambda: self.trimmed(path)))
        self.write_more(path)
        self.assertTrue(soon(lambda: self.trimmed(path)))
        self.assertFalse(self.trimmed(target))

    def test_a_disk_that_keeps_it_waiting_does_not_keep_it_from_its_duty(self) -> None:
        program = """if True:
            import os, runpy, sys, time
            lstat, log = os.lstat, os.fsencode(sys.argv.pop(1))
            def hang(path, **how):
                if path == log:
                    open(log + b'.hangs', 'x')
                    time.sleep(300)
                return lstat(path, **how)
            os.lstat = hang
            runpy.run_path(sys.argv.pop(1), run_name='__main__')
        """
        (log, line), (path, second) = self.log("a"), self.directory("b")
        process = self.begin([sys.executable, "-I", "-S", "-c", program, log, reaper.__file__])
        self.tell(process, line)
        self.assertTrue(soon(lambda: os.path.exists(log + ".hangs")))
        self.tell(process, second)
        with quickly(self, 20):
            process.stdin.close()
            self.assertTrue(soon(lambda: not os.path.exists(path)))

    def test_it_does_not_look_when_there_are_none(self) -> None:
        # A thread would look.
        process = self.begin()
        _, line = self.directory("a")
        self.tell(process, line)
        self.booted(process)
        self.assertEqual(len(os.listdir(f"/proc/{process.pid}/task")), 1)

    def test_it_stays_small_all_the_same(self) -> None:
        path, line = self.log("a")
        process = self.begin()
        self.tell(process, line)
        for _ in range(20):
            self.assertTrue(soon(lambda: self.trimmed(path)))
            self.write_more(path)
        self.assertLess(kibibytes(process), 12 * 1024)

    def test_where_the_package_is_gone_nothing_else_suffers(self) -> None:
        alone = shutil.copy(reaper.__file__, self.make_dir("alone"))
        _, line = self.log("a")
        process = self.begin([alone if word == reaper.__file__ else word for word in PROGRAM])
        self.tell(process, line)
        self.assertTrue(soon(lambda: len(os.listdir(f"/proc/{process.pid}/task")) == 2))
        self.end(process)


class ServiceTests(NothingRemains):
    """A service that writes without end."""

    kept_logs = 0
    LIMIT = 128 * 1024
    # Until it is ready it may take more.
    AWAITED = 8 * LIMIT
    # A block at a time, and the next one when its log is below the limit again.
    WRITER = """
        import os, sys, time
        limit, line = int(sys.argv[1]), 0
        def on_disk():
            found = os.fstat(1)
            return min(found.st_blocks * 512, found.st_size - os.lseek(1, 0, os.SEEK_DATA))
        while True:
            text = b''.join(b'line %10d\\n' % number for number in range(line, line + 16384))
            os.write(1, text)
            line += 16384
            while on_disk() > limit:
                time.sleep(0.001)
            os.write(2, b'%d rounds\\n' % (line // 16384))
    """

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.dict(os.environ, {reaping.LIMIT: str(self.LIMIT)}))

    def test_it_takes_no_more_than_the_limit_and_its_end_is_right(self) -> None:
        command = python(self.WRITER, self.AWAITED)
        with OutputExecutor(command, "^20 rounds", stderr=subprocess.PIPE, timeout=30) as service:
            out, err = service._capture.logs
            mark = out.mark()
            self.assertTrue(soon(lambda: out.mark() > mark))
            since = out.since(mark)
            os.kill(service.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, service.pid, os.WSTOPPED | os.WNOWAIT)
            self.assertTrue(soon(lambda: on_disk(out.path) <= self.LIMIT))
            size = out.mark()
            self.assertGreater(size, 4 * self.AWAITED)
            self.assertEqual(out.tail(1).splitlines()[-1], f"line {size // 16 - 1:10}")
            first = since.splitlines()[0]
            self.assertTrue(first == f"line {mark // 16:10}" or first.startswith("[... "), first)
            self.assertIn("20 rounds", err.tail(1000))
            os.kill(service.pid, signal.SIGCONT)

    def test_until_it_is_ready_it_may_take_more_as_its_banner_may_not_be_looked_for_yet(self) -> None:
        def may_take_more(service: OutputExecutor) -> bool:
            return self.limit_and_logs(service)[0] == self.AWAITED

        with OutputExecutor(["sh", "-c", "echo ready; exec sleep 300"], "ready", probe=may_take_more) as service:
            self.assertEqual(self.limit_and_logs(service)[0], self.LIMIT)

    def limit_and_logs(self, service: SimpleExecutor) -> tuple[int, list[bytes]]:
        """What the reaper was told."""
        limit, *logs = current_run().reaper._entries[service._mark].partition("\t")[2].split()
        return int(limit), [bytes.fromhex(log) for log in logs]

    def test_so_does_yes(self) -> None:
        with SimpleExecutor("yes | head -c 20000000; exec sleep 300", shell=True) as service:
            self.assertTrue(soon(lambda: os.path.getsize(service.log_path) == 20_000_000))
            self.assertTrue(soon(lambda: on_disk(service.log_path) <= self.LIMIT))
            self.assertRegex(service.tail(2), r"^\[\.\.\. 1999999\d bytes before\]\ny\ny$")

    def test_so_does_a_helper_command(self) -> None:
        command = python(self.WRITER.replace("while True", "while line < 5 * 16384"), self.LIMIT)
        code, output = current_run().run_command(command, StopPlan(environment=dict(os.environ)), Deadline(30))
        self.assertEqual((code, output.splitlines()[-1]), (0, "5 rounds"))

    def test_without_a_limit_it_is_left_alone(self) -> None:
        with mock.patch.dict(os.environ, {reaping.LIMIT: "0"}), SimpleExecutor(SLEEP) as service:
            self.assertNotIn("\t", current_run().reaper._entries[service._mark])
        with SimpleExecutor(SLEEP) as service:
            paths = [os.fsencode(log.path) for log in service._capture.logs]
            self.assertEqual(self.limit_and_logs(service), (self.LIMIT, paths))


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
