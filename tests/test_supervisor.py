import os
import signal
import subprocess
import sys
import unittest
from contextlib import suppress
from unittest import mock

from caseexec import processes, supervisor
from tests.helpers.leaks import NothingRemains, alive, soon
from tests.helpers.programs import EXIT_3, SLEEP, VANISHES, python


@unittest.skipUnless(supervisor.available(), "there are no supervisors here")
class SupervisorCase(NothingRemains):
    def begin(
        self, command: list[str], executable: str | None = None, stop=signal.SIGTERM, **popen
    ) -> subprocess.Popen:
        process = subprocess.Popen(
            supervisor.command(command, executable, stop),
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT,
                "text": True,
                "start_new_session": True,
                **popen,
            },
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen) -> None:
        """Kill what is left of it; as long as it lives it keeps all of them."""
        while children := list(processes.tree(processes.table(), process.pid)):
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            if process.poll() is not None:
                break
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()

    def run_it(self, command: list[str], executable: str | None = None, **popen) -> tuple[int, str]:
        process = self.begin(command, executable, **popen)
        output, _ = process.communicate(timeout=20)
        return process.returncode, output

    def pid(self, name: str) -> int:
        self.assertTrue(soon(lambda: os.path.exists(self.path(name))))
        with open(self.path(name)) as file:
            return int(file.read())

    def daemon(self, process: subprocess.Popen) -> int:
        """The pid of a daemon when it is the supervisor's child, and nobody else is."""
        pid = self.pid("pid")
        self.assertTrue(soon(lambda: processes.table().children(process.pid) == [pid]))
        return pid


class CommandTests(SupervisorCase):
    def test_the_command_is_run_with_its_arguments(self) -> None:
        self.assertEqual(self.run_it(["echo", "a b", "", "$c"]), (0, "a b  $c\n"))

    def test_another_program_can_run_under_its_name(self) -> None:
        self.assertEqual(self.run_it(["a name", "-c", 'echo "$0"'], "/bin/sh"), (0, "a name\n"))

    def test_it_ends_with_the_commands_exit_status(self) -> None:
        self.assertEqual(self.run_it(EXIT_3), (3, "it hurts\n"))
        self.assertEqual(self.run_it(["true"]), (0, ""))

    def test_it_dies_by_the_signal_that_the_command_died_by(self) -> None:
        for number in (
            signal.SIGTERM,
            signal.SIGKILL,
            signal.SIGSEGV,
            signal.SIGPIPE,
            signal.SIGUSR1,
            signal.SIGRTMIN + 3,
        ):
            with self.subTest(number):
                self.assertEqual(self.run_it(["sh", "-c", f"ulimit -c 0; kill -{int(number)} $$"])[0], -number)

    def test_a_signal_that_it_is_deaf_to_is_an_exit_status_as_a_shells(self) -> None:
        deaf = lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # noqa: E731
        program = "import os, signal; signal.pthread_sigmask(signal.SIG_UNBLOCK, {10}); os.kill(os.getpid(), 10)"
        self.assertEqual(self.run_it(python(program), preexec_fn=deaf)[0], 128 + signal.SIGUSR1)

    def test_a_program_that_is_not_there_is_told_as_a_shell_does(self) -> None:
        code, output = self.run_it(["/no/such/program"])
        self.assertEqual((code, output), (127, "/no/such/program: No such file or directory\n"))

    def test_the_environment_is_the_commands(self) -> None:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "COLOUR": "red"}
        _, output = self.run_it(["env"], env=environment)
        self.assertEqual(dict(line.split("=", 1) for line in output.splitlines()), environment)
        # A locale that Python would set another one for.
        self.assertEqual(self.run_it(["/usr/bin/env"], env={"LANG": "C"}), (0, "LANG=C\n"))
        self.assertEqual(self.run_it(["/usr/bin/env"], env={"LC_CTYPE": "C.UTF-8"}), (0, "LC_CTYPE=C.UTF-8\n"))

    def test_the_command_ignores_and_blocks_no_signal(self) -> None:
        _, direct = self.signals(["/bin/cat", "/proc/self/status"], supervised=False)
        _, below = self.signals(["/bin/cat", "/proc/self/status"], supervised=True)
        self.assertEqual(below, direct)

    def signals(self, command: list[str], supervised: bool) -> tuple[int, list[str]]:
        process = subprocess.run(supervisor.command(command) if supervised else command, capture_output=True, text=True)
        return process.returncode, [
            line for line in process.stdout.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))
        ]

    def test_what_is_ignored_stays_ignored(self) -> None:
        ignore = lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # noqa: E731
        self.assertEqual(self.run_it(["sh", "-c", "kill -USR1 $$; echo alive"], preexec_fn=ignore), (0, "alive\n"))

    def test_further_descriptors_are_passed_on_and_not_kept(self) -> None:
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        program = "import os, sys; os.write(int(sys.argv[1]), b'heard'); sys.stdin.read()"
        process = self.begin(python(program, write), stdin=subprocess.PIPE, pass_fds=[write])
        os.close(write)
        self.assertEqual(os.read(read, 100), b"heard")
        (child,) = processes.table().children(process.pid)
        self.assertTrue(
            soon(lambda: str(write) not in os.listdir(f"/proc/{process.pid}/fd")), "the supervisor keeps it"
        )
        self.assertIn(str(write), os.listdir(f"/proc/{child}/fd"))

    def test_the_end_of_its_output_is_that_of_the_commands(self) -> None:
        process = self.begin(["sh", "-c", "exec >&- 2>&-; exec sleep 300"])
        self.assertEqual(process.stdout.read(), "")
        self.assertIsNone(process.poll())


class DescendantsTests(SupervisorCase):
    def test_a_daemon_that_leaves_no_trace_becomes_its_child(self) -> None:
        process = self.begin(python(VANISHES, self.path("pid"), ""))
        daemon = self.daemon(process)
        self.assertIsNone(process.poll(), "it waits for the daemon")
        self.assertNotEqual(os.getsid(daemon), process.pid)
        os.kill(daemon, signal.SIGKILL)
        self.assertEqual(process.wait(10), 0, "it ends as the command did, not as the last of all")

    def test_a_signal_is_passed_on_to_those_that_left_the_group(self) -> None:
        process = self.begin(python(VANISHES, self.path("pid"), ""))
        daemon = self.daemon(process)
        for number in (signal.SIGTERM, signal.SIGCONT):
            os.killpg(process.pid, number)
        self.assertEqual(process.wait(10), 0)
        self.assertFalse(alive(daemon))

    def test_those_in_the_group_have_it_from_whoever_signals_the_group(self) -> None:
        program = """
            import os, signal, sys, time
            name = 'outside'
            def heard(*_):
                print(name)
            signal.signal(signal.SIGUSR1, heard)
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.write(1, b'ready\\n')  # Before that, Python forgets a signal that came while it forked.
                    while True:
                        time.sleep(300)
                os._exit(0)
            os.wait()
            name = 'inside'
            os.write(1, b'ready\\n')
            while not os.path.exists(sys.argv[1]):
                time.sleep(0.005)
            print('end')
        """
        process = self.begin(python(program, self.path("go")))
        self.assertEqual([process.stdout.readline() for _ in range(2)], ["ready\n"] * 2)
        # The supervisor alone: it passes this on to the daemon only. At the second, the first has been dealt with.
        for _ in range(2):
            process.send_signal(signal.SIGUSR1)
            self.assertEqual(process.stdout.readline(), "outside\n")
        with open(self.path("go"), "w"):
            pass
        self.assertEqual(process.stdout.readline(), "end\n")

    def test_a_command_that_fails_takes_along_what_it_started(self) -> None:
        program = (
            VANISHES
            + """
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.001)
    sys.exit(3)
"""
        )
        process = self.begin(python(program, self.path("pid"), ""))
        daemon = self.pid("pid")
        self.assertEqual(process.wait(10), 3)
        self.assertFalse(alive(daemon))

    def test_so_does_one_that_is_killed(self) -> None:
        program = VANISHES + "    time.sleep(300)\n"
        process = self.begin(python(program, self.path("pid"), ""))
        daemon = self.pid("pid")
        self.assertTrue(soon(lambda: daemon in processes.table().children(process.pid)))
        (command,) = {*processes.table().children(process.pid)} - {daemon}
        os.kill(command, signal.SIGKILL)
        self.assertEqual(process.wait(10), -signal.SIGKILL)
        self.assertFalse(alive(daemon))

    def test_when_it_was_asked_to_end_the_others_are_given_their_time(self) -> None:
        program = """
            import os, signal, sys, time
            number = int(sys.argv[1])
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    signal.sigwait({number})
                    print('told')
                os._exit(0)
            os.wait()
            if os.fork() == 0:
                os.setsid()
                print(os.getppid())
                signal.sigwait({number})
                time.sleep(0.2)
                print('done')
                os._exit(0)
            signal.sigwait({number})
            sys.exit(3)
        """
        for number in (signal.SIGTERM, signal.SIGUSR1):
            with self.subTest(number):
                process = self.begin(python(program, int(number)), stop=number)
                command = int(process.stdout.readline())
                process.send_signal(number)
                self.assertEqual(process.stdout.readline(), "told\n")
                # Only now one of them comes to the supervisor, as the command that has started it ends.
                os.kill(command, number)
                output, _ = process.communicate(timeout=20)
                self.assertEqual((output, process.returncode), ("done\n", 3))


class MakeTests(unittest.TestCase):
    def test_there_is_such_a_thing_on_linux_only(self) -> None:
        for platform, there in (("linux", True), ("darwin", False)):
            with mock.patch.object(sys, "platform", platform):
                self.assertEqual(supervisor.available(), there)

    def test_it_is_run_by_a_python_that_takes_nothing_from_the_environment(self) -> None:
        made = supervisor.command(["a", "b"])
        self.assertEqual(made, [sys.executable, "-I", "-S", supervisor.__file__, "15", "a", "a", "b"])

    def test_a_program_that_embeds_python_has_one_beside_it(self) -> None:
        with mock.patch.object(sys, "executable", ""):
            self.assertEqual(supervisor.command(["a"])[0], "python3")

    def test_importing_it_loads_nothing_of_the_package(self) -> None:
        program = f"import runpy, sys; runpy.run_path({supervisor.__file__!r}); print('caseexec' in sys.modules)"
        found = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(found.stdout, "False\n", SLEEP)
