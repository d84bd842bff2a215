import os
import signal
import subprocess
import sys
import threading
import unittest

from caseexec import install_signal_handlers
from tests.helpers.leaks import alive, quickly, soon
from tests.helpers.programs import IGNORES_TERM
from tests.helpers.runs import RunCase, without_waits

PROGRAM = """
    import os, signal, sys
    from caseexec import OutputExecutor, install_signal_handlers
    {before}
    install_signal_handlers()
    install_signal_handlers()
    polite = ["sh", "-c", "trap 'echo bye >bye; exit' TERM; echo up; while :; do sleep 0.02; done"]
    executor = OutputExecutor({command}, "up|deaf", stop_command="touch stopped").start()
    {then}
    print(executor.pid, flush=True)
    signal.pause()
    print("not ended by the signal")
"""


class InstallSignalHandlersTests(RunCase):
    def program(self, before: str = "pass", then: str = "pass", command: object = "polite") -> str:
        return self.write("program.py", PROGRAM.format(before=before, then=then, command=command))

    def signalled(self, program: str, number: int = signal.SIGTERM) -> tuple[int, str]:
        process = self.begin(program)
        self.pid = int(self.line(process))
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
        return process.returncode, without_waits(output)

    def test_services_end_gracefully_and_then_the_run_by_the_signal(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                self.assertEqual(self.signalled(self.program(), number), (-number, ""))
                self.assertFalse(alive(self.pid))
                for name in ("stopped", "bye"):
                    os.unlink(self.path(name))
                self.assertEqual(os.listdir(self.run_tmp), [])

    def test_the_handler_that_was_there_before_is_called_afterwards(self) -> None:
        before = "signal.signal(signal.SIGTERM, lambda *_: print(os.path.exists('bye')) or sys.exit(7))"
        self.assertEqual(self.signalled(self.program(before)), (7, "True\n"))

    def test_a_signal_that_is_ignored_stays_ignored(self) -> None:
        then = "os.kill(os.getpid(), signal.SIGHUP); print('alive', executor.running(), flush=True); os._exit(0)"
        program = self.program("signal.signal(signal.SIGHUP, signal.SIG_IGN)", then)
        code, output = self.run_python(program)
        self.assertEqual((code, output), (0, "alive True\n"))
        self.assertTrue(soon(lambda: not os.listdir(self.run_tmp)))

    def test_a_second_signal_ends_the_patience(self) -> None:
        then = "executor._owned.run._sweep = lambda *_: os.kill(os.getpid(), signal.SIGTERM)"
        with quickly(self, 5):
            self.assertEqual(self.signalled(self.program(then=then, command=IGNORES_TERM))[0], -signal.SIGTERM)
        self.assertTrue(soon(lambda: not os.listdir(self.run_tmp)))

    def test_what_the_signal_interrupts_may_be_reading_from_a_service_or_writing_to_it(self) -> None:
        begin = "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()"
        for then in ("executor.output().read()", "executor.process.stdin.write('-' * 999999)"):
            with self.subTest(then):
                code, output = self.run_python(self.program(then=f"import threading; {begin}; {then}"))
                self.assertEqual((code, output), (-signal.SIGTERM, ""))
                os.unlink(self.path("bye"))

    def test_in_a_forked_child_services_are_left_alone(self) -> None:
        then = """child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), executor.running(), flush=True)
    sys.exit(0)"""
        _, output = self.run_python(self.program(then=then))
        self.assertEqual(output, "-15 True\n")

    def test_importing_caseexec_installs_nothing(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        self.assertEqual(before, signal.SIG_DFL)

    def test_outside_the_main_thread_it_cannot_be_done(self) -> None:
        caught: list[BaseException] = []

        def call() -> None:
            try:
                install_signal_handlers()
            except ValueError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        self.assertRegex(str(caught[0]), "main thread")


class WithoutItTests(unittest.TestCase):
    def test_a_run_does_not_intercept_the_signals(self) -> None:
        program = (
            "import signal; from caseexec import SimpleExecutor\nwith SimpleExecutor('sleep 300'):\n"
            "    print([signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGHUP)])"
        )
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        self.assertEqual(output.strip(), "[True, True]")
