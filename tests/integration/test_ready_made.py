import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from contextlib import closing
from unittest import mock

import psutil

from caseexec import AlreadyRunning, CrashWarning, ServicesMixin, TCPService, cache, memory
from caseexec.scopes import Launch
from caseexec.servers import PostgreSQL, Redis, ServerRefused
from tests.helpers.classes import run_class, the_notes
from tests.helpers.leaks import NothingRemains, soon
from tests.helpers.runs import ROOT
from tests.integration.servers import require

with contextlib.suppress(ImportError):  # The classes are skipped then.
    import psycopg
with contextlib.suppress(ImportError):
    import redis

# Not as Unicode composes it: a server and its clients must mean the same.
KNOWN = "u\u0308 \u00a0\ufb01\u00ad"
postgresql = require(client="psycopg") if PostgreSQL().find_program() else require("postgres", "postgresql")


@require("redis-server", "redis-server", client="redis")
class RedisTests(ServicesMixin, unittest.TestCase):
    cache = Redis(reset=True)
    secret = Redis(password='it\'s "secret" \\x41', options={"maxmemory": "16mb"})

    def client(self, url=None):
        return self.enterContext(closing(redis.Redis.from_url(url or self.cache.url)))

    def test_what_is_set_is_got_again(self):
        self.client().set("fruit", "quince")
        self.assertEqual(self.client().get("fruit"), b"quince")

    def test_what_was_set_is_gone_in_the_next_test(self):
        self.assertIsNone(self.client().get("fruit"))
        self.client().set("fruit", "medlar")

    test_again = test_what_was_set_is_gone_in_the_next_test

    def test_a_reset_empties_all_its_databases(self):
        self.client(self.cache.url.replace("/0", "/3")).set("fruit", "quince")
        self.cache.reset()
        self.assertEqual(self.client(self.cache.url.replace("/0", "/3")).dbsize(), 0)

    def test_it_writes_nothing_to_disk(self):
        self.client().set("fruit", "quince")
        self.assertEqual(self.client().config_get("save")["save"], "")
        self.assertEqual(os.listdir(self.cache.tmp), [])

    def test_it_listens_on_loopback_only(self):
        found = {connection.laddr.ip for connection in psutil.Process(self.cache.pid).net_connections()}
        self.assertEqual(found, {"127.0.0.1"})

    def test_its_version_is_that_of_its_program(self):
        self.assertEqual(self.cache.version(), Redis().version())
        self.assertEqual(self.client().info()["redis_version"], self.cache.version())

    def test_a_password_is_wanted(self):
        with self.assertRaises(redis.AuthenticationError):
            self.client(f"redis://{self.secret.address}/0").get("fruit")
        self.client(self.secret.url).set("fruit", "quince")
        self.secret.reset()
        self.assertIsNone(self.client(self.secret.url).get("fruit"))

    def test_a_password_is_not_to_be_seen(self):
        self.assertNotIn("secret", " ".join(psutil.Process(self.secret.pid).cmdline()).replace(self.secret.tmp, ""))
        self.assertEqual(os.stat(f"{self.secret.tmp}/redis.conf").st_mode & 0o777, 0o600)

    def test_redis_cli_takes_its_url(self):
        found = subprocess.run(["redis-cli", "-u", self.secret.url, "PING"], capture_output=True, check=True)
        self.assertEqual(found.stdout, b"PONG\n")

    def test_redis_cli_needs_no_argument_but_the_port(self):
        environment = {**os.environ, **self.secret.env()}
        command = ["redis-cli", "-p", environment["REDIS_PORT"], "PING"]
        self.assertEqual(subprocess.run(command, env=environment, capture_output=True, check=True).stdout, b"PONG\n")

    def test_settings_are_heeded(self):
        self.assertEqual(self.client(self.secret.url).config_get("maxmemory"), {"maxmemory": str(16 << 20)})

    def test_after_a_restart_it_is_empty_and_in_the_same_place(self):
        self.client().set("fruit", "quince")
        url = self.cache.url
        self.cache.restart()
        self.assertEqual((self.cache.url, self.client().get("fruit")), (url, None))


@postgresql
class PostgreSQLTests(ServicesMixin, unittest.TestCase):
    db = PostgreSQL(options={"log_statement": "all"})

    def connect(self, dsn=None, **options):
        connection = psycopg.connect(dsn or self.db.dsn, autocommit=True, connect_timeout=20, **options)
        self.addCleanup(connection.close)
        return connection

    def value(self, statement):
        return self.connect().execute(statement).fetchone()[0]

    def test_a_row_inserted_is_selected_again(self):
        self.connect().execute("CREATE TEMPORARY TABLE fruit AS SELECT 'quince' AS name")
        self.assertEqual(self.value("SELECT 'quince'"), "quince")

    def test_all_ways_lead_there(self):
        for dsn in (self.db.dsn, self.db.url, f"host={self.db.tmp} port={self.db.port} user=postgres"):
            self.assertEqual(self.connect(dsn).execute("SELECT 1").fetchone(), (1,))
        with mock.patch.dict(os.environ, self.db.env()):
            self.assertEqual(self.connect("").execute("SELECT current_database()").fetchone(), ("postgres",))

    def test_who_does_not_know_the_password_is_not_let_in(self):
        with self.assertRaisesRegex(psycopg.OperationalError, "password authentication failed"):
            self.connect(password="guess")

    def test_only_its_user_can_reach_its_socket(self):
        found = os.stat(self.db.tmp)
        self.assertEqual((found.st_mode & 0o777, found.st_uid), (0o700, psutil.Process(self.db.pid).uids().real))

    def test_it_does_not_run_as_root(self):
        self.assertNotEqual(psutil.Process(self.db.pid).uids().real, 0)

    def test_it_waits_for_no_disk(self):
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self.assertEqual(self.value(f"SHOW {setting}"), "off")

    def test_it_listens_on_loopback_only(self):
        self.assertEqual(self.value("SHOW listen_addresses"), "127.0.0.1")

    def test_its_version_is_that_of_its_program(self):
        self.assertEqual(self.db.version(), PostgreSQL().version())

    def test_it_knows_all_letters(self):
        self.assertEqual(self.value("SELECT lower('ÀÖ')"), "àö")

    def test_settings_are_heeded(self):
        self.assertEqual(self.value("SHOW log_statement"), "all")
        self.assertIn("SHOW log_statement", self.db.tail())

    def test_what_was_committed_is_there_after_a_restart(self):
        self.connect().execute("CREATE TABLE kept AS SELECT 42 AS answer")
        self.db.restart()
        self.assertEqual(self.value("SELECT answer FROM kept"), 42)
        self.db.reset()

    def test_a_client_that_stays_connected_does_not_hold_up_the_stop(self):
        connection = self.connect()
        with self.db.stopped():
            with self.assertRaises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            with self.assertRaisesRegex(OSError, rf"/\.s\.PGSQL\.{self.db.port}'$"):
                self.db.database()

    def test_a_reset_makes_it_as_new_whoever_is_connected(self):
        self.connect().execute("CREATE TABLE fruit (name text)")
        other = self.db.database()
        self.connect(other.dsn)
        self.db.reset()
        self.assertEqual(self.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0)
        self.assertEqual(self.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'test_%'"), 0)

    def test_a_reset_that_could_not_be_done_leaves_all_as_it_was(self):
        self.connect().execute("CREATE TABLE fruit AS SELECT 'quince' AS name")
        self.addCleanup(self.db.reset)
        # As when somebody is connected to template1, which the server finds out in five seconds only.
        self.connect().execute("CREATE DATABASE new_taken")
        with mock.patch("secrets.token_hex", return_value="taken"):
            with self.assertRaisesRegex(ServerRefused, 'database "new_taken" already exists'):
                self.db.reset()
        self.connect().execute("DROP DATABASE new_taken")
        self.assertEqual(self.value("SELECT name FROM fruit"), "quince")

    def test_what_tests_want_of_the_server_does_not_hinder_what_is_done_for_them(self):
        connection = self.connect()
        connection.execute("ALTER ROLE postgres SET statement_timeout = 1")
        connection.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
        self.addCleanup(connection.execute, "ALTER ROLE postgres RESET ALL")
        with self.db.database() as database:
            self.assertEqual(self.connect(database.dsn).execute("SHOW statement_timeout").fetchone(), ("1ms",))

    def test_a_database_is_a_copy_of_its_template_and_gone_after_the_block(self):
        shop = self.db.database("shop")
        self.addCleanup(shop.drop)
        with psycopg.connect(shop.dsn) as connection:
            connection.execute("CREATE TABLE fruit AS SELECT 'quince' AS name")
        connection.close()
        with self.db.database(template="shop") as one, self.db.database(template="shop") as two:
            self.connect(one.url).execute("DELETE FROM fruit")
            self.assertEqual(self.connect(two.url).execute("SELECT name FROM fruit").fetchall(), [("quince",)])
        self.assertEqual(self.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'test_%'"), 0)

    def test_what_it_refuses_is_told_in_its_own_words(self):
        with self.assertRaisesRegex(ServerRefused, 'template database "no-such" does not exist'):
            self.db.database(template="no-such")

    def test_its_helper_processes_belong_to_the_service(self):
        helpers = self.connect().execute("SELECT pid FROM pg_stat_activity").fetchall()
        self.assertLessEqual({pid for (pid,) in helpers}, set(self.db.living()))


class Case(NothingRemains):
    """Has services of its own in each test."""

    def start(self, service, name="db"):
        launch = Launch(service, "tests.Case", name)
        self.addCleanup(launch.discard)
        launch.start()
        return launch.executor

    def ask(self, executor, statement, **options):
        with psycopg.connect(executor.dsn, autocommit=True, **options) as connection:
            answer = connection.execute(statement)
            return answer.fetchall() if answer.description else None


@postgresql
class LivesTests(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.use_cache(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="t-")), cls.enterClassContext)

    @classmethod
    def use_cache(cls, place, enter_context):
        """Have a cache of one's own, where also the user can get to whose the data are."""
        os.chmod(place, 0o755)
        enter_context(mock.patch.object(cache, "_ELSEWHERE", place))
        enter_context(mock.patch.dict(os.environ, {"XDG_CACHE_HOME": place}))

    def test_nothing_of_the_users_own_is_read(self):
        theirs = {"PGPORT": "1", "PGDATA": "/nonexistent", "PGCLIENTENCODING": "no-such", "PGDATESTYLE": "no-such"}
        with mock.patch.dict(os.environ, theirs):
            db = self.start(PostgreSQL())
        self.assertEqual(self.ask(db, "SHOW client_encoding", client_encoding="UTF8"), [("UTF8",)])

    def test_one_that_is_killed_is_started_again_with_its_data(self):
        class Killed(ServicesMixin, unittest.TestCase):
            db = PostgreSQL(restart="on_crash")

            def test_1(self):
                with psycopg.connect(self.db.dsn, autocommit=True) as connection:
                    connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
                    connection.execute("CHECKPOINT")  # What was committed in the last moment is lost otherwise.
                for pid in self.db.living():
                    with contextlib.suppress(ProcessLookupError):  # Some see that the first has died, and end.
                        os.kill(pid, signal.SIGKILL)
                self.assertTrue(soon(self.db.has_died))

            def test_2(self):
                with psycopg.connect(self.db.dsn) as connection:
                    self.assertEqual(connection.execute("SELECT answer FROM kept").fetchone(), (42,))

        result, warned = run_class(Killed)
        self.assertEqual((result.testsRun, the_notes(result)), (2, []))
        self.assertEqual([warning.category for warning in warned], [CrashWarning])

    def test_one_that_is_killed_just_after_a_reset_is_started_again(self):
        db = self.start(PostgreSQL(start_timeout=20))
        db.reset()
        for pid in db.living():
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(soon(db.has_died))
        db.restart()
        self.assertEqual(self.ask(db, "SELECT 1"), [(1,)])

    def test_a_password_can_be_chosen(self):
        db = self.start(PostgreSQL(password="it's ü"))
        self.assertEqual(db.env()["PGPASSWORD"], "it's ü")
        self.assertEqual(self.ask(db, "SELECT 1"), [(1,)])

    def test_initdb_can_be_told_more(self):
        db = self.start(PostgreSQL(initdb=["--locale=C"]))
        self.assertEqual(self.ask(db, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'"), [("C",)])

    def test_kept_data_are_found_again(self):
        for kept in ([], [(1,)]):
            launch = Launch(PostgreSQL(keep="found-again"), "tests.Case", "db")
            self.addCleanup(launch.discard)
            launch.start()
            self.assertEqual(self.ask(launch.executor, "SELECT 1 FROM pg_tables WHERE tablename = 'kept'"), kept)
            self.ask(launch.executor, "CREATE TABLE IF NOT EXISTS kept (a int)")
            launch.stop()

    def test_kept_data_are_not_held_by_who_has_the_number_of_a_killed_server(self):
        launch = Launch(PostgreSQL(keep="killed"), "tests.Case", "db")
        self.addCleanup(launch.discard)
        pid_file = os.path.realpath(f"{launch.start().data_directory}/postmaster.pid")
        with open(pid_file) as file:
            lines = file.read().splitlines()
        owner = os.stat(pid_file).st_uid
        launch.stop()
        other = subprocess.Popen(["sleep", "60"], **({"user": owner} if os.getuid() == 0 else {}))
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        with open(pid_file, "w") as file:
            file.write("\n".join([str(other.pid), *lines[1:]]) + "\n")
        os.chown(pid_file, owner, -1)
        self.assertTrue(self.start(PostgreSQL(keep="killed")).version())

    def test_kept_data_are_for_one_at_a_time(self):
        first = self.start(PostgreSQL(keep="shop"))
        with self.assertRaises(AlreadyRunning) as caught:
            self.start(PostgreSQL(keep="shop"), "other")
        error = caught.exception
        self.assertRegex(
            error.headline(),
            r"^tests\.Case\.other seems to be already running: data directory .*/kept-postgresql-shop-.*/data is held",
        )
        self.assertEqual(error.owner.pid, first.pid)
        error.executor.remove_logs()

    def test_one_that_is_there_already_is_used(self):
        there = self.start(PostgreSQL(password=KNOWN))
        with mock.patch.dict(os.environ, {"CASEEXEC_USE_DB": there.address}):
            used = self.start(PostgreSQL(password=KNOWN))
            self.assertEqual((used.dsn, used.version()), (there.dsn, there.version()))
            with used.database() as database:
                self.assertEqual(self.ask(used, f"SELECT 1 FROM pg_database WHERE datname = '{database.name}'"), [(1,)])

    def test_one_that_is_there_already_and_has_another_password_is_told_of(self):
        there = self.start(PostgreSQL(password=KNOWN))
        with mock.patch.dict(os.environ, {"CASEEXEC_USE_DB": there.address}):
            with self.assertRaises(Exception) as caught:
                self.start(PostgreSQL(password="wrong", start_timeout=0.5))
        self.assertIn('password authentication failed for user "postgres"', str(caught.exception))

    def test_of_eight_runs_at_once_one_makes_the_template(self):
        program = """if True:
            import os
            from caseexec import cache
            from caseexec.scopes import Launch
            from caseexec.servers import PostgreSQL
            cache._ELSEWHERE = os.environ["XDG_CACHE_HOME"]
            made = cache._make
            def make(path, make, *more):
                def told(new):
                    print("made", flush=True)
                    make(new)
                return made(path, told, *more)
            cache._make = make
            launch = Launch(PostgreSQL(), "Case", "db")
            launch.start()
            assert launch.executor.version()
            launch.stop()
        """
        os.chmod(self.tmp, 0o755)
        self.use_cache(self.make_dir("cache"), self.enterContext)
        environment = {**os.environ, "PYTHONPATH": ROOT, "CASEEXEC_TIMEOUT_SCALE": "4"}
        start = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": environment, "text": True}
        command = [sys.executable, "-c", program]
        processes = [subprocess.Popen(command, **start) for _ in range(8)]
        told = [process.communicate()[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [0] * 8, "\n".join(told))
        self.assertEqual("".join(told).count("made"), 1, told)

    def test_what_a_killed_run_had_in_memory_goes(self):
        with mock.patch.object(tempfile, "tempdir", "/tmp"):
            if memory.place() is None:
                self.skipTest("there is not enough memory")
        program = """if True:
            from caseexec.scopes import Launch
            from caseexec.servers import PostgreSQL
            launch = Launch(PostgreSQL(), "Case", "db")
            print(launch.start().tmp, flush=True)
            input()
        """
        plain = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "TEMP", "TMP")}
        start = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "text": True,
            "env": {**plain, "PYTHONPATH": ROOT},
        }
        with subprocess.Popen([sys.executable, "-c", program], **start) as process:
            tmp = process.stdout.readline().strip()
            self.assertTrue(tmp.startswith("/dev/shm/caseexec-") and os.path.isdir(tmp), tmp)
            process.kill()
        self.assertTrue(soon(lambda: not os.path.exists(tmp)))

    def test_what_its_processes_share_is_in_its_directory_and_goes_with_that(self):
        db = self.start(PostgreSQL())
        self.assertNotEqual(os.listdir(f"{db.data_directory}/pg_dynshmem"), [])


@require("redis-server", "redis-server", client="redis")
class RedisLivesTests(Case):
    def test_one_that_is_there_already_is_used(self):
        there = self.start(Redis(password="known"))
        with mock.patch.dict(os.environ, {"CASEEXEC_USE_DB": there.address}):
            self.assertEqual(self.start(Redis(password="known")).url, there.url)

    def test_others_find_it_by_placeholders(self):
        class Wired(ServicesMixin, unittest.TestCase):
            cache = Redis(password="a b")
            worker = TCPService("{python} -m http.server {port} --bind {host}", env={"CACHE": "{cache.url}"})

            def test_it(self):
                environment = psutil.Process(self.worker.pid).environ()
                self.assertEqual(environment["CACHE"], self.cache.url)

        result, warned = run_class(Wired)
        self.assertEqual((result.errors, result.failures, warned), ([], [], []))

    def test_a_stranger_on_its_port_is_told_of(self):
        with socket.create_server(("127.0.0.1", 0)) as stranger, self.assertRaises(AlreadyRunning) as caught:
            self.start(Redis(port=stranger.getsockname()[1]))
        self.assertEqual(caught.exception.owner.pid, os.getpid())
