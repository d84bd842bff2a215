"""Suites that were written for mirakuru: what others derived from its executors runs on caseexec's."""

import contextlib
import http.client
import importlib
import os
import pathlib
import pickle
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import types
import unittest
from unittest import mock

import caseexec
from caseexec import Executor, HTTPExecutor, OutputExecutor, PidExecutor, SimpleExecutor, TCPExecutor, ports
from tests.helpers.leaks import NothingRemains, alive
from tests.helpers.programs import (
    DIES_BY_SEGV,
    EXIT_3,
    EXIT_TRUE,
    HTTP_SERVER,
    IGNORES_TERM,
    SLEEP,
    TCP_SERVER,
    python,
)
from tests.integration.servers import GIVE_TO_ORDINARY_USER, ORDINARY_USER, path, require

with contextlib.suppress(ImportError):  # The classes are skipped then.
    import psycopg
with contextlib.suppress(ImportError):
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

MODULES = ("base", "exceptions", "http", "output", "pid", "tcp", "unixsocket")

# Accepts at once, but is ready only when it greets.
GREETS_LATE = """
    import socket, sys, time
    ready = time.monotonic() + 0.3
    server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
    while True:
        connection = server.accept()[0]
        connection.sendall(b'ready' if time.monotonic() > ready else b'wait!')
        connection.close()
"""


@contextlib.contextmanager
def caseexec_as_mirakuru(*packages):
    """Let ``import mirakuru`` find caseexec, for these packages too if they are imported already; undone afterwards."""
    before = _modules("mirakuru", *packages)
    for name in before:
        del sys.modules[name]
    exported = {name: getattr(caseexec, name) for name in caseexec.__all__}
    for name in ("mirakuru", *(f"mirakuru.{module}" for module in MODULES)):
        stand_in = types.ModuleType(name)
        stand_in.__dict__.update(exported, __path__=[])
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name in _modules("mirakuru", *packages):
            del sys.modules[name]
        sys.modules.update(before)


def _modules(*packages):
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}


def derived_from_caseexec(module):
    with caseexec_as_mirakuru(module.partition(".")[0]):
        return importlib.import_module(module)


class SuiteCase(NothingRemains):
    def port(self):
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        return port

    def assert_refused(self, port):
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10).close()

    def assert_ended(self, *pids):
        self.assertEqual([pid for pid in pids if alive(pid)], [])


@require("redis-server", "redis-server", client="redis")
@require(client="pytest_redis")
class RedisExecutorOfPytestRedisTests(SuiteCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.RedisExecutor = derived_from_caseexec("pytest_redis.executor.process").RedisExecutor

    def executor(self, **options):
        executor = self.RedisExecutor(
            shutil.which("redis-server", path=path()), databases=4, redis_timeout=0, loglevel="notice",
            host="127.0.0.1", port=self.port(), startup_timeout=30, datadir=pathlib.Path(self.tmp), **options,
        )  # fmt: skip
        self.addCleanup(executor.kill)
        return executor

    def client(self, executor):
        client = redis.Redis(executor.host, executor.port, decode_responses=True, retry=Retry(NoBackoff(), 0))
        self.addCleanup(client.close)
        return client

    def test_it_is_an_executor_of_caseexec(self):
        self.assertTrue(issubclass(self.RedisExecutor, TCPExecutor))

    def test_it_answers_when_it_is_started_and_is_gone_when_it_is_stopped(self):
        executor = self.executor()
        self.assertIs(executor.start(), executor)
        client, pid = self.client(executor), executor.process.pid
        client.set("colour", "green")
        self.assertEqual(client.get("colour"), "green")
        self.assertIs(executor.stop(), executor)
        self.assert_refused(executor.port)
        self.assert_ended(pid)
        self.assertFalse(executor.running())

    def test_it_runs_for_the_time_of_a_with_block(self):
        with self.executor() as executor:
            pid = executor.process.pid
            self.assertTrue(self.client(executor).ping())
        self.assert_refused(executor.port)
        self.assert_ended(pid)

    def test_it_is_refused_while_it_is_stopped_and_answers_again_afterwards(self):
        with self.executor() as executor:
            client, first = self.client(executor), executor.process.pid
            with executor.stopped() as stopped:
                self.assertIs(stopped, executor)
                self.assert_ended(first)
                with self.assertRaises(redis.ConnectionError):
                    client.ping()
            self.assertTrue(client.ping())
            self.assertNotEqual(executor.process.pid, first)
        self.assert_refused(executor.port)

    def test_a_second_one_on_its_port_is_told_that_it_is_already_running(self):
        with self.executor() as executor:
            second = self.RedisExecutor(executor.executable, 1, 0, "notice", "127.0.0.1", executor.port)
            with self.assertRaises(caseexec.AlreadyRunning) as raised:
                second.start()
            self.assertIs(raised.exception.executor, second)
            self.assertTrue(self.client(executor).ping())

    def test_settings_that_the_server_refuses_end_the_start(self):
        with self.assertRaises(caseexec.ProcessExitedWithError) as raised:
            self.executor(appendonly="perhaps").start()
        self.assertEqual(raised.exception.exit_code, 1)
        self.assertIn("argument must be 'yes' or 'no'", str(raised.exception))


@require(client="pytest_redis")
class NoopRedisOfPytestRedisTests(SuiteCase):
    """An executor without a command: it waits for a server that somebody else has started."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.NoopRedis = derived_from_caseexec("pytest_redis.executor.noop").NoopRedis

    def test_it_waits_for_the_server_and_leaves_it_running(self):
        port = self.port()
        with SimpleExecutor(python(TCP_SERVER, port, 0.2)) as server:
            with self.NoopRedis("127.0.0.1", port, startup_timeout=10) as noop:
                self.assertEqual((noop.host, noop.port, noop.process), ("127.0.0.1", port, None))
                socket.create_connection(("127.0.0.1", port)).close()
            self.assertTrue(server.running())

    def test_without_a_server_it_times_out(self):
        noop = self.NoopRedis("127.0.0.1", self.port(), startup_timeout=0.3)
        with self.assertRaises(caseexec.TimeoutExpired) as raised:
            noop.start()
        self.assertEqual((raised.exception.executor, raised.exception.timeout), (noop, 0.3))


@require("pg_ctl", "postgresql", client="psycopg")
@require(client="pytest_postgresql")
class PostgreSQLExecutorOfPytestPostgresqlTests(SuiteCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.PostgreSQLExecutor = derived_from_caseexec("pytest_postgresql.executors.proc").PostgreSQLExecutor

    def setUp(self):
        super().setUp()
        os.chmod(self.tmp, 0o711)  # For the user that the server runs as, on the way to its own directory.
        self.home = self.make_dir("pg")
        subprocess.run(f"{GIVE_TO_ORDINARY_USER} {shlex.quote(self.home)}", shell=True, check=True)

    def pg_ctl(self):
        """The program, as a user that it accepts; the executor knows nothing of it."""
        script = self.path("pg_ctl")
        with open(script, "w") as file:
            file.write(f'#!/bin/sh\ncd / && exec {ORDINARY_USER} {shutil.which("pg_ctl", path=path())} "$@"\n')
        os.chmod(script, stat.S_IRUSR | stat.S_IXUSR)
        return script

    def executor(self, **options):
        executor = self.PostgreSQLExecutor(
            executable=self.pg_ctl(), host="127.0.0.1", port=self.port(), datadir=f"{self.home}/data",
            unixsocketdir=self.home, logfile=f"{self.home}/log", startparams="-w", dbname="shop",
            postgres_options="-c fsync=off", **options,
        )  # fmt: skip
        self.addCleanup(self.remove, executor)
        return executor

    def remove(self, executor):
        executor.kill()
        shutil.rmtree(self.home)  # Before it is deleted: that would ask pg_ctl, which takes a zombie for a server.

    def connect(self, executor):
        found = []

        def answers():
            """It accepts connections while it still starts, but refuses clients."""
            where = {"host": executor.host, "port": executor.port, "user": executor.user, "dbname": "postgres"}
            with contextlib.suppress(psycopg.OperationalError):
                found.append(psycopg.connect(**where, autocommit=True, connect_timeout=10))
            return bool(found)

        executor.wait_for(answers)
        self.addCleanup(found[0].close)
        return found[0]

    def postmaster(self):
        with open(f"{self.home}/data/postmaster.pid") as file:
            return int(file.readline())

    def test_it_is_an_executor_of_caseexec(self):
        self.assertTrue(issubclass(self.PostgreSQLExecutor, TCPExecutor))

    def test_it_answers_when_it_is_started_and_is_gone_when_it_is_stopped(self):
        executor = self.executor()
        self.assertIs(executor.start(), executor)
        self.assertEqual(self.connect(executor).execute("SELECT 6 * 7").fetchone(), (42,))
        self.assertTrue(executor.running())
        family = {self.postmaster(), *executor.living()}
        self.assertIs(executor.stop(), executor)
        self.assertFalse(executor.running())
        self.assert_refused(executor.port)
        self.assert_ended(*family)

    def test_a_row_is_there_again_after_it_was_stopped_for_a_while(self):
        with self.executor() as executor:
            self.connect(executor).execute("CREATE TABLE kept AS SELECT 42 AS answer")
            first = self.postmaster()
            with executor.stopped():
                self.assertFalse(executor.running())
                self.assert_ended(first)
                self.assert_refused(executor.port)
            self.assertEqual(self.connect(executor).execute("SELECT answer FROM kept").fetchone(), (42,))
            second = self.postmaster()
        self.assert_refused(executor.port)
        self.assert_ended(second)

    def test_kill_ends_the_server_that_pg_ctl_left_in_the_background(self):
        executor = self.executor().start()
        family = {self.postmaster(), *executor.living()}
        self.assertGreater(len(family), 1)
        executor.kill()
        self.assert_refused(executor.port)
        self.assert_ended(*family)


class StandInTests(unittest.TestCase):
    def test_it_leaves_the_modules_as_they_were(self):
        before = _modules("mirakuru", "pytest_redis", "pytest_postgresql")
        with caseexec_as_mirakuru("pytest_redis"):
            import mirakuru
            from mirakuru.exceptions import ProcessFinishedWithError

            self.assertIs(mirakuru.TCPExecutor, TCPExecutor)
            self.assertIs(ProcessFinishedWithError, caseexec.ProcessFinishedWithError)
        self.assertEqual(_modules("mirakuru", "pytest_redis", "pytest_postgresql"), before)


class MarkerExecutor(Executor):
    """Ready when a file appears; overrides the two checks and nothing else."""

    def __init__(self, command, marker, **options):
        self.marker = marker
        super().__init__(command, **options)

    def pre_start_check(self):
        return os.path.exists(self.marker)

    def after_start_check(self):
        return os.path.exists(self.marker)


class GreetedExecutor(TCPExecutor):
    """Ready when its server greets, after the check of its base."""

    def after_start_check(self):
        if not super().after_start_check():
            return False
        with socket.create_connection((self.host, self.port)) as sock:
            return sock.recv(5) == b"ready"


class PluginLikeExecutor(SimpleExecutor):
    """As plugins have it: names of their own for the arguments of stop(), a start() that prepares, a __del__()."""

    def __init__(self, command, datadir):
        self.datadir = datadir
        super().__init__(command, timeout=10)

    def start(self):
        os.makedirs(self.datadir, exist_ok=True)
        return super().start()

    def stop(self, sig=None, exp_sig=None):
        with open(f"{self.datadir}/stopped", "a") as file:
            file.write("x")
        return super().stop(sig, exp_sig)

    def __del__(self):
        super().__del__()


class SubclassesOfUsersTests(SuiteCase):
    def test_one_that_overrides_the_two_checks_starts_when_its_check_holds(self):
        command = f"sleep 0.2; touch {self.path('marker')}; exec sleep 300"
        with MarkerExecutor(command, self.path("marker"), shell=True, timeout=10) as executor:
            self.assertTrue(os.path.exists(self.path("marker")))
            pid = executor.process.pid
        self.assert_ended(pid)

    def test_one_that_overrides_the_two_checks_says_that_it_is_already_running(self):
        executor = MarkerExecutor(SLEEP, self.make_dir("marker"))
        with self.assertRaises(caseexec.AlreadyRunning) as raised:
            executor.start()
        self.assertIs(raised.exception.executor, executor)
        self.assertIsNone(executor.process)
        self.assertIn("already running", str(raised.exception))

    def test_one_without_checks_cannot_be_started(self):
        with self.assertRaises(NotImplementedError):
            Executor(SLEEP).start()

    def test_one_that_asks_more_than_its_base_waits_for_both(self):
        port = self.port()
        with GreetedExecutor(python(GREETS_LATE, port), "127.0.0.1", port, timeout=10) as executor:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                self.assertEqual(sock.recv(5), b"ready")
            pid = executor.process.pid
        self.assert_refused(port)
        self.assert_ended(pid)

    def test_one_that_asks_over_http_finds_host_port_and_path(self):
        class Asking(HTTPExecutor):
            def after_start_check(self):
                connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
                try:
                    connection.request("GET", self.url.path)
                    return connection.getresponse().status == 204
                except OSError:
                    return False
                finally:
                    connection.close()

        port = self.port()
        statuses = ["500", "503", "204"]
        command = python(HTTP_SERVER, port, *statuses)
        with Asking(command, f"http://127.0.0.1:{port}/health?full=1", timeout=10) as executor:
            self.assertEqual([executor.url.scheme, executor.url.port, executor.url.query], ["http", port, "full=1"])
            self.assertEqual(executor.output().readline(), "GET /health HTTP/1.1\n")

    def test_one_with_other_names_for_the_arguments_of_stop_can_be_stopped_for_a_while(self):
        with PluginLikeExecutor(SLEEP, self.path("data")) as executor:
            first = executor.process.pid
            with executor.stopped():
                self.assertFalse(executor.running())
            second = executor.process.pid
        self.assert_ended(first, second)
        with open(self.path("data/stopped")) as file:
            self.assertEqual(file.read(), "xx")

    def test_one_that_adds_to_the_environment_is_heard(self):
        class Coloured(SimpleExecutor):
            @property
            def envvars(self):
                return {**super().envvars, "COLOUR": "green"}

        with Coloured("echo $COLOUR $SHAPE", shell=True, envvars={"SHAPE": "round"}) as executor:
            self.assertEqual(executor.output().read(), "green round\n")

    def test_one_that_sets_host_and_port_before_its_base_does_keeps_them(self):
        class Searching(HTTPExecutor):
            def __init__(self, host, port):
                self.host, self.port = host, port
                command = python(HTTP_SERVER, port, 200)
                super().__init__(command, f"http://{self.host}:{self.port}/", timeout=10)

        port = self.port()
        with Searching("127.0.0.1", port) as executor:
            self.assertEqual((executor.host, executor.port), ("127.0.0.1", port))

    def test_one_that_takes_its_port_for_part_of_running_is_started_and_stopped(self):
        class Listening(TCPExecutor):
            def running(self):
                return super().running() or self.pre_start_check()

        port = self.port()
        with Listening(python(TCP_SERVER, port), "127.0.0.1", port, timeout=10) as executor:
            self.assertTrue(executor.running())
        self.assertFalse(executor.running())

    def test_one_that_failed_in_its_constructor_is_deleted_in_silence(self):
        class Broken(PluginLikeExecutor):
            def __init__(self):
                raise KeyError("before the base was called")

        with mock.patch.object(sys, "unraisablehook") as hook:
            with self.assertRaises(KeyError):
                Broken()
        hook.assert_not_called()

    def test_a_check_that_is_patched_decides(self):
        port = self.port()
        with mock.patch.object(TCPExecutor, "after_start_check", return_value=True) as check:
            with TCPExecutor(SLEEP, "127.0.0.1", port, timeout=10) as executor:
                self.assertTrue(executor.running())
        check.assert_called_once_with()


class SuitesOfUsersTests(SuiteCase):
    def test_the_arguments_have_their_old_names_and_order(self):
        by_name = {
            "cwd": "/", "shell": False, "timeout": 10, "sleep": 0.1, "stop_signal": signal.SIGINT,
            "kill_signal": signal.SIGKILL, "expected_returncode": -2, "envvars": {"A": "1"}, "stdin": None,
            "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "popen_kwargs": {"umask": 0o77},
        }  # fmt: skip
        for executor in (SimpleExecutor("pwd", **by_name), SimpleExecutor("pwd", *by_name.values())):
            with self.subTest(executor), executor:
                self.assertEqual((executor.output().read(), executor.err_output().read()), ("/\n", ""))

    def test_start_stop_and_kill_can_be_chained(self):
        executor = SimpleExecutor(SLEEP)
        self.assertIs(executor.start().stop().start().kill().start().stop(), executor)
        self.assertFalse(executor.running())
        with executor.start().stopped() as stopped:
            self.assertFalse(stopped.running())
        executor.kill()

    def test_a_string_and_its_parts_are_the_same_command(self):
        for command in ("sleep 300", ["sleep", "300"]):
            executor = SimpleExecutor(command)
            self.assertEqual((executor.command, executor.command_parts), ("sleep 300", ["sleep", "300"]))

    def test_a_condition_can_be_waited_for_after_the_start(self):
        command = f"sleep 0.2; touch {self.path('done')}; exec sleep 300"
        with SimpleExecutor(command, shell=True, timeout=10) as executor:
            self.assertIs(executor.wait_for(lambda: os.path.exists(self.path("done"))), executor)

    def test_a_condition_that_never_holds_ends_the_command(self):
        executor = SimpleExecutor(SLEEP, timeout=0.3).start()
        pid = executor.process.pid
        with self.assertRaises(caseexec.TimeoutExpired) as raised:
            executor.wait_for(lambda: False)
        self.assertEqual((raised.exception.executor, raised.exception.timeout), (executor, 0.3))
        self.assertIsNone(executor.process)
        self.assert_ended(pid)

    def test_a_loop_of_ones_own_ends_with_the_timeout(self):
        executor = SimpleExecutor(SLEEP, timeout=0.3)
        self.assertTrue(executor.check_timeout())
        with executor:
            turns = 0
            while executor.check_timeout() and turns < 1000:
                turns += 1
                time.sleep(0.01)
            self.assertLess(turns, 1000)
            self.assertTrue(executor.running())

    def test_a_line_after_the_banner_is_waited_for(self):
        source = "import time; print('port 8080'); time.sleep(0.2); print('second'); time.sleep(300)"
        with OutputExecutor(python(source), banner="port", timeout=10) as executor:
            self.assertIn("second\n", executor.output())

    def test_the_two_streams_are_read_apart(self):
        with SimpleExecutor("echo out; echo err >&2", shell=True, stderr=subprocess.PIPE) as executor:
            self.assertEqual((executor.output().read(), executor.err_output().read()), ("out\n", "err\n"))
        self.assertEqual((executor.output(), executor.err_output()), (None, None))

    def test_what_is_written_to_stdin_arrives(self):
        with SimpleExecutor("cat") as executor:
            executor.process.stdin.write("hello\n")
            executor.process.stdin.flush()
            self.assertEqual(executor.output().readline(), "hello\n")

    def test_a_pid_file_is_waited_for(self):
        pid_file = self.path("pid")
        command = f"sleep 0.2; echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 300"
        with PidExecutor(command, filename=pid_file, shell=True, timeout=10) as executor:
            self.assertEqual(executor.filename, pid_file)
            with open(pid_file) as file:
                self.assertEqual(int(file.read()), executor.process.pid)

    def test_a_service_that_the_test_kills_can_be_started_again(self):
        port = self.port()
        executor = TCPExecutor(python(TCP_SERVER, port), "127.0.0.1", port, timeout=10).start()
        self.addCleanup(executor.kill)
        first = executor.process.pid
        os.killpg(first, signal.SIGKILL)
        executor.wait_for(lambda: not executor.running())
        with self.assertRaises(caseexec.ProcessFinishedWithError) as raised:
            executor.stop()
        self.assertEqual(raised.exception.exit_code, -signal.SIGKILL)
        self.assertNotEqual(executor.start().process.pid, first)
        executor.stop()
        self.assert_refused(port)

    def test_one_that_is_deaf_to_the_stop_signal_takes_another(self):
        executor = SimpleExecutor(IGNORES_TERM).start()
        self.assertEqual(executor.output().readline(), "deaf\n")
        self.assertIs(executor.stop(stop_signal=signal.SIGQUIT, expected_returncode=-signal.SIGQUIT), executor)


class ErrorsForUsersTests(SuiteCase):
    def errors(self):
        """One of each, as a user would meet it."""
        port = self.port()
        holder = TCPExecutor(python(TCP_SERVER, port), "127.0.0.1", port, timeout=10)
        with holder:
            yield self.error_of(TCPExecutor(SLEEP, "127.0.0.1", port).start)
        free = self.port()
        yield self.error_of(TCPExecutor(SLEEP, "127.0.0.1", free, timeout=0.2).start)
        yield self.error_of(TCPExecutor(EXIT_3, "127.0.0.1", free, timeout=10).start)
        yield self.error_of(self.crashed().stop)

    def crashed(self):
        executor = SimpleExecutor(DIES_BY_SEGV).start()
        executor.process.wait()
        return executor

    def error_of(self, function):
        with self.assertRaises(caseexec.ExecutorError) as raised:
            function()
        return raised.exception

    def test_they_have_their_old_types_and_attributes(self):
        running, timeout, exited, finished = self.errors()
        self.assertIs(type(running), caseexec.AlreadyRunning)
        self.assertIs(type(timeout), caseexec.TimeoutExpired)
        self.assertIs(type(exited), caseexec.ProcessExitedWithError)
        self.assertIs(type(finished), caseexec.ProcessFinishedWithError)
        self.assertIsInstance(finished, caseexec.ProcessExitedWithError)
        for error in (running, timeout, exited, finished):
            self.assertIsInstance(error.executor, SimpleExecutor)
            self.assertIsNone(error.executor.process)
        self.assertEqual((timeout.timeout, exited.exit_code, finished.exit_code), (0.2, 3, -signal.SIGSEGV))

    def test_they_can_be_made_with_their_old_arguments(self):
        executor = SimpleExecutor(SLEEP)
        for error in (
            caseexec.ExecutorError(executor),
            caseexec.AlreadyRunning(executor),
            caseexec.TimeoutExpired(executor, timeout=5),
            caseexec.ProcessExitedWithError(executor, exit_code=3),
            caseexec.ProcessFinishedWithError(executor, exit_code=3),
        ):
            self.assertIs(error.executor, executor)
            self.assertIn("sleep 300", str(error))

    def test_they_travel_between_processes(self):
        for error in self.errors():
            with self.subTest(type(error)):
                copy = pickle.loads(pickle.dumps(error))
                self.assertIs(type(copy), type(error))
                self.assertEqual((str(copy), repr(copy)), (str(error), repr(error)))
                self.assertIsNone(copy.executor)
                for name in ("exit_code", "timeout"):
                    self.assertEqual(getattr(copy, name, None), getattr(error, name, None))

    def test_a_command_that_ended_well_is_no_error(self):
        executor = SimpleExecutor(EXIT_TRUE).start()
        executor.process.wait()
        executor.stop()
