"""What goes wrong with services, one by one: each ends in a ready service or a clear error, and nothing is left."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from unittest import mock

from caseexec import errors, ports
from caseexec.executors import HTTPExecutor, OutputExecutor, TCPExecutor
from caseexec.probes import http
from caseexec.registry import current_run
from tests.helpers.leaks import NothingRemains, alive, clock_is_after, quickly, soon
from tests.helpers.programs import (
    ACCEPTS_BUT_NEVER_ANSWERS,
    CHILD_LEAVES,
    DOUBLE_FORKS,
    HTTP_SERVER,
    STUBBORN_FAMILY,
    TCP_DAEMON,
    TCP_SERVER,
    python,
)

# Writes 50 MB to each stream, says that it is ready, and writes on.
NOISY = """
    import os, sys, threading
    noise = b'noise ' * 170 + b'\\n'
    def write(descriptor, times):
        while times != 0:
            os.write(descriptor, noise)
            times -= 1
    threads = [threading.Thread(target=write, args=(descriptor, 50_000)) for descriptor in (1, 2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    os.write(1, b'ready')
    write(1, 50_000)
    write(2, 50_000)
    open(sys.argv[1], 'w').close()
    import signal; signal.pause()
"""

SPLIT_BANNER = """
    import os, time
    for piece in (b'on the ', b'way: re', b'ad', b'y to go'):
        os.write(1, piece)
        time.sleep(0.01)
    import signal; signal.pause()
"""

CLOSES_STDOUT = TCP_SERVER.replace(
    "print('listening on', sys.argv[1])", "print('last words'); import os; os.close(1); os.close(2)"
)


class BadInputTests(NothingRemains):
    def port(self) -> int:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        return port

    def tcp(self, source: str, *arguments: object, **options) -> TCPExecutor:
        port = self.port()
        return TCPExecutor(python(source, port, *arguments), "127.0.0.1", port, **options)

    def start_fails(self, executor: TCPExecutor, kind: type[errors.ExecutorError], text: str) -> errors.ExecutorError:
        with quickly(self, 20), self.assertRaisesRegex(kind, text) as caught:
            executor.start()
        self.assertEqual(current_run().groups, set())
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((executor.host, executor.port)).close()
        return caught.exception

    @contextlib.contextmanager
    def time_over_when(self, executor: TCPExecutor, condition: Callable[[], bool]) -> Iterator[None]:
        """Let the time of a start be over when a condition holds, however long that takes."""
        check = executor.check_subprocess

        def check_once_more() -> bool:
            over = condition()
            ready = check()
            if over:
                executor._deadline.expire()
            return ready

        with mock.patch.object(executor, "check_subprocess", check_once_more):
            yield

    def test_it_exits_with_status_0(self) -> None:
        executor = self.tcp("print('done')", timeout=20)
        with self.time_over_when(executor, lambda: executor.exit_code() is not None):
            self.start_fails(
                executor, errors.TimeoutExpired, "The command itself had ended by then: it exited with status 0"
            )

    def test_it_exits_with_status_3(self) -> None:
        self.start_fails(self.tcp("raise SystemExit(3)"), errors.ProcessExitedWithError, "exited with status 3 after")

    def test_it_dies_by_a_signal(self) -> None:
        executor = self.tcp("import os; os.abort()")
        self.start_fails(executor, errors.ProcessExitedWithError, "was killed by SIGABRT after")

    def test_it_prints_50_megabytes_before_and_after_it_is_ready_on_both_streams(self) -> None:
        done = self.path("done")
        for options in ({}, {"stderr": subprocess.STDOUT}):
            with OutputExecutor(python(NOISY, done), "ready", **options) as executor:
                self.assertTrue(soon(lambda: os.path.exists(done), 60), "it was blocked")
                size = sum(os.stat(log.path).st_size for log in executor._capture.logs)
                self.assertGreater(size, 200_000_000)
                self.assertLess(len(executor.tail()), 20_000)
            os.unlink(done)

    def test_it_prints_its_banner_split_over_writes_and_without_a_newline(self) -> None:
        with OutputExecutor(python(SPLIT_BANNER), r"way: ready to \w+") as executor:
            self.assertEqual(executor.tail(), "on the way: ready to go")

    def test_it_accepts_but_never_answers(self) -> None:
        port = self.port()
        executor = HTTPExecutor(python(ACCEPTS_BUT_NEVER_ANSWERS, port), f"http://127.0.0.1:{port}/", timeout=20)
        with (
            mock.patch.object(http, "_REQUEST_TIMEOUT", 0.3),
            self.time_over_when(executor, lambda: executor._refusal not in ("", "connection refused")),
        ):
            error = self.start_fails(executor, errors.TimeoutExpired, "last refusal: no answer in time")
        self.assertIn(f"waiting for: HEAD http://127.0.0.1:{port}/ to answer with status any 2xx", str(error))

    def test_it_answers_503_for_a_while(self) -> None:
        port = self.port()
        with HTTPExecutor(python(HTTP_SERVER, port, *[503] * 20, 200), f"http://127.0.0.1:{port}/") as executor:
            self.assertEqual(executor.tail(lines=2000, limit=10**6).count("HEAD / "), 21)

    def test_it_closes_stdout(self) -> None:
        with self.tcp(CLOSES_STDOUT) as executor:
            self.assertTrue(soon(lambda: executor.tail() == "last words"))

    def test_it_is_deaf_to_sigterm_with_20_children_that_are_too(self) -> None:
        executor = OutputExecutor(STUBBORN_FAMILY, "family complete", stop_timeout=0.3).start()
        family = executor.living()
        self.assertEqual(len(family), 21)
        with self.assertWarns(errors.ForcedKillWarning) as caught:
            executor.stop()
        self.assertEqual(sorted(caught.warning.pids), sorted(family))
        self.assertFalse(any(map(alive, family)))

    def test_it_is_deaf_and_never_ready(self) -> None:
        executor = self.tcp("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)", timeout=0.3)
        error = self.start_fails(executor, errors.TimeoutExpired, "timed out after 0.3 seconds")
        self.assertFalse(alive(error.facts.pid))

    def test_it_double_forks(self) -> None:
        with self.tcp(TCP_DAEMON) as executor:
            # Who has started it may not have ended yet.
            self.assertTrue(soon(lambda: len(executor.living()) == 1))
            (daemon,) = executor.living()
        self.assertFalse(alive(daemon))

    def test_a_daemon_of_a_start_that_fails_is_ended_too(self) -> None:
        executor = TCPExecutor(python(DOUBLE_FORKS, self.path("pid")), "127.0.0.1", self.port(), timeout=20)
        done = lambda: executor.exit_code() is not None and os.path.exists(self.path("pid"))  # noqa: E731
        with self.time_over_when(executor, done):
            self.start_fails(executor, errors.TimeoutExpired, "had ended by then")
        with open(self.path("pid")) as file:
            self.assertFalse(alive(int(file.read())))

    def test_it_calls_setsid(self) -> None:
        program = "import os\nif os.fork(): os.wait()\nos.setsid()\n" + TCP_SERVER.replace("\n    ", "\n")
        with self.tcp(program) as executor:
            family = executor.living()
            self.assertEqual(len({os.getsid(pid) for pid in family}), 2)
        self.assertFalse(any(map(alive, family)))

    def test_a_child_leaves_the_session_with_an_empty_environment(self) -> None:
        with OutputExecutor(["sh", "-c", 'echo up; exec "$0" "$@"', *python(CHILD_LEAVES, self.path("pid"))], "up"):
            self.assertTrue(soon(lambda: os.path.exists(self.path("pid"))))
            with open(self.path("pid")) as file:
                child = int(file.read())
            self.assertTrue(alive(child))
        self.assertFalse(alive(child))

    def test_a_stranger_has_the_port_before_the_start(self) -> None:
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", self.port()))
            stranger.listen()
            port = stranger.getsockname()[1]
            with self.assertRaisesRegex(errors.AlreadyRunning, f"is held by pid {os.getpid()} "):
                TCPExecutor(python(TCP_SERVER, port), "127.0.0.1", port).start()

    def test_a_stranger_takes_the_port_after_our_check(self) -> None:
        port = self.port()
        stranger = subprocess.Popen(
            ["sh", "-c", 'until test -e "$0"; do sleep 0.01; done; exec "$@"', self.path("go"), *python(TCP_SERVER, port)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        self.assertTrue(soon(lambda: clock_is_after(stranger.pid)))
        # It lets the stranger in, and then fails to bind, or waits.
        lets_in = "import sys, time; open(sys.argv[2], 'w').close(); " + (
            "import socket\nwhile socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))): pass\n"
        )
        for ending in ("sys.exit('address already in use')", "time.sleep(300)"):
            executor = TCPExecutor(python(lets_in + ending, port, self.path("go")), "127.0.0.1", port)
            with self.subTest(ending), quickly(self, 20):
                with self.assertRaisesRegex(errors.AlreadyRunning, f"held by pid {stranger.pid}"):
                    executor.start()
                self.assertTrue(alive(stranger.pid), "a stranger is never harmed")

    def test_it_is_stopped_by_the_user_in_the_middle(self) -> None:
        with self.assertRaisesRegex(
            errors.ProcessFinishedWithError, "had ended by itself before it was stopped: it was killed by SIGKILL"
        ):
            with self.tcp(TCP_SERVER) as executor:
                os.kill(executor.pid, signal.SIGKILL)
                self.assertTrue(soon(lambda: not executor.running()))
