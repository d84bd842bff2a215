import os
import socket
import struct
import subprocess
import threading
import unittest
from contextlib import closing, contextmanager
from unittest import mock

from caseexec import DeclarationError, ServicesMixin, TCPService
from caseexec.deadline import Deadline
from caseexec.errors import PreparationFailed
from caseexec.executors import Declared
from caseexec.probes import NotReady
from caseexec.probes.tcp import connected
from caseexec.probes.wire import Wire
from caseexec.scopes import Launch
from caseexec.servers import Database, PostgreSQL, Redis, ServerRefused
from caseexec.servers.postgresql.protocol import Session, identifier
from caseexec.servers.postgresql.readiness import DataDirectory
from caseexec.servers.redis import RedisProbe
from tests.helpers.classes import MixinCase, masked
from tests.helpers.leaks import NothingRemains


class DeclarationTests(unittest.TestCase):
    def the_error(self, make) -> str:
        with self.assertRaises(DeclarationError) as caught:
            make()
        return str(caught.exception)

    def test_its_command_is_its_own(self) -> None:
        told = (
            "Redis.command: a Redis makes its command itself: leave it out; its program can be named in program=, "
            "settings of the server in options="
        )
        self.assertEqual(self.the_error(lambda: Redis("redis-server --port {port}")), told)
        self.assertEqual(self.the_error(lambda: Redis(command=["redis-server"])), told)
        self.assertEqual(self.the_error(lambda: Redis().replace(command="x")), told)

    def test_an_option_that_there_is_not_is_told(self) -> None:
        self.assertIn("Redis.pasword: there is no such option; did you mean password?",
                      self.the_error(lambda: Redis(pasword="x")))  # fmt: skip

    def test_settings_are_names_and_plain_values(self) -> None:
        for options, told in (
            (["save"], "Redis.options: a list is no mapping of names to values: write {'NAME': 'value'}"),
            ({"max memory": 1}, "Redis.options: 'max memory' is no name of a setting"),
            ({"save": None}, "Redis.options: ['save'] is None: write a string in one line, a number, or True or False"),
            ({"save": "a\nb"}, "Redis.options: ['save'] is 'a\\nb': write a string in one line, a number, or True"),
            ({"save": "{prot}"}, "Redis.command: there is no placeholder {prot} (there are {host}, {port}"),
        ):
            self.assertIn(told, self.the_error(lambda given=options: Redis(options=given)))

    def test_a_password_is_one_line(self) -> None:
        for kind in (Redis, PostgreSQL):
            told = (
                f"{kind.__name__}.password: it is empty, or has more than one line: give another one, or leave it out"
            )
            self.assertEqual(self.the_error(lambda kind=kind: kind(password="")), told)
            self.assertEqual(self.the_error(lambda kind=kind: kind(password="a\nb")), told)
            told = f"{kind.__name__}.password: a bytes is no password: write a string"
            self.assertEqual(self.the_error(lambda kind=kind: kind(password=b"secret")), told)

    def test_what_is_an_option_of_the_declaration_is_no_setting(self) -> None:
        for make, told in (
            (lambda: Redis(options={"port": 6379}), "Redis.options: ['port'] is to be given as port="),
            (lambda: Redis(options={"requirepass": "x"}), "Redis.options: ['requirepass'] is to be given as password="),
            (
                lambda: PostgreSQL(options={"DATA_DIRECTORY": "/x"}),
                "PostgreSQL.options: ['DATA_DIRECTORY'] is to be given as keep=",
            ),
        ):
            self.assertEqual(self.the_error(make), told)

    def test_what_initdb_is_told_anyway_is_not_for_others_to_tell(self) -> None:
        for argument in ("-D", "--pgdata=/x", "-Ubob", "--username=bob", "--auth-local=peer", "-Amd5", "--waldir"):
            self.assertEqual(
                self.the_error(lambda argument=argument: PostgreSQL(initdb=[argument])),
                f"PostgreSQL.initdb: {argument!r} is decided already: leave it out",
            )
        PostgreSQL(initdb=["--auth-host=md5", "--locale=C", "--wal-segsize=16", "-k"])

    def test_postgresqls_socket_is_in_its_directory_wherever_else_it_is(self) -> None:
        self.assertEqual(
            self.the_error(lambda: PostgreSQL(options={"unix_socket_directories": "/tmp"})),
            "PostgreSQL.options: ['unix_socket_directories'] must have {tmp} in it: write '{tmp}, /tmp'",
        )
        PostgreSQL(options={"unix_socket_directories": "/tmp , {tmp}"})

    def test_an_option_of_the_wrong_type_is_told_of(self) -> None:
        for option, value, told in (
            ("keep", None, "None is no name of a directory: use letters, digits, '-', '_' and '.' only"),
            ("user", 5, "5 is no name of a user"),
            ("initdb", "--locale=C", "'--locale=C' is no list of arguments: write ['--locale=C']"),
            ("program", b"postgres", "b'postgres' is no path: write a string, or a pathlib.Path"),
        ):
            made = self.the_error(lambda option=option, value=value: PostgreSQL(**{option: value}))
            self.assertEqual(made, f"PostgreSQL.{option}: {told}")

    def test_a_kept_directory_has_a_plain_name(self) -> None:
        self.assertEqual(
            self.the_error(lambda: PostgreSQL(keep="../shop")),
            "PostgreSQL.keep: '../shop' is no name of a directory: use letters, digits, '-', '_' and '.' only",
        )

    def test_only_a_ready_made_one_knows_how_to_reset_itself(self) -> None:
        self.assertEqual(
            self.the_error(lambda: TCPService("x {port}", reset=True)),
            "TCPService.reset: it is True, but only a ready-made service knows how to empty itself: give a function",
        )
        self.assertTrue(callable(Redis(reset=True).reset))
        self.assertEqual(Redis(reset=True), Redis(reset=True), "so two classes can share it")

    def test_neither_its_text_nor_its_command_tells_the_password(self) -> None:
        for kind in (Redis, PostgreSQL):
            service = kind(password="secret", scope="session", options={"a": True})
            self.assertEqual(repr(service), f"{kind.__name__}(scope='session', options={{'a': True}})")
            self.assertNotIn("secret", str(service.command))

    def test_settings_become_arguments_and_replace_ours(self) -> None:
        command = " ".join(Redis(options={"appendonly": True, "maxmemory": "1mb", "hz": 20}).command)
        self.assertTrue(command.endswith("--appendonly yes --maxmemory 1mb --hz 20"), command)
        command = " ".join(PostgreSQL(options={"fsync": True, "log_statement": "all"}).command)
        self.assertIn("-c fsync=on -c synchronous_commit=off", command)
        self.assertTrue(command.endswith("-c log_statement=all"), command)

    def test_they_listen_on_loopback(self) -> None:
        self.assertEqual((Redis().host, PostgreSQL().host), ("127.0.0.1", "127.0.0.1"))


class ProgramCase(MixinCase):
    def setUp(self) -> None:
        super().setUp()
        self.bin = self.make_dir("bin")
        self.enterContext(mock.patch.dict(os.environ, {"PATH": self.bin}))

    def program(self, name: str, says: str = "", directory: str = "") -> str:
        path = os.path.join(directory or self.bin, name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\necho '{says}'\n")
        os.chmod(path, 0o755)
        return path


class ProgramTests(ProgramCase):
    def program_without_template(self, script: str) -> None:
        """A PostgreSQL, with a cache of one's own, whose initdb is this script."""
        self.program("postgres", "postgres (PostgreSQL) 15.1")
        with open(self.program("initdb"), "w") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        self.enterContext(mock.patch("caseexec.cache._ELSEWHERE", self.make_dir("elsewhere")))
        self.enterContext(mock.patch.dict(os.environ, {"XDG_CACHE_HOME": self.path("cache")}))
        for path in (self.tmp, self.bin, self.path("elsewhere")):
            os.chmod(path, 0o755)

    def test_its_version_is_what_its_program_says(self) -> None:
        self.program("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
        self.assertEqual(Redis().version(), "7.0.15")
        self.program("redis-server", r"Sch\0366nes v=7.2.1")
        self.assertEqual(Redis().version(), "7.2.1")
        self.program("postgres", "postgres (PostgreSQL) 17beta1")
        self.assertEqual(PostgreSQL().version(), "17")

    def test_valkey_will_do_where_there_is_no_redis(self) -> None:
        valkey = self.program("valkey-server", "Valkey server v=8.0.1 sha=00000000:0")
        self.assertEqual((Redis().find_program(), Redis().version()), (valkey, "8.0.1"))
        redis = self.program("redis-server")
        self.assertEqual(Redis().find_program(), redis)

    def test_a_program_can_be_named(self) -> None:
        self.program("redis-server")
        other = self.program("my-redis", directory=self.make_dir("other"))
        self.assertEqual(Redis(program=other).find_program(), other)
        self.assertIsNone(Redis(program="my-redis").find_program())
        self.assertEqual(Redis(program="my-redis", env={"PATH": self.path("other")}).find_program(), other)

    def test_postgresql_is_also_found_where_pg_config_says(self) -> None:
        places = self.enterContext(mock.patch("caseexec.servers.postgresql.declaration._PLACES", ()))
        self.assertEqual(places, ())
        self.assertIsNone(PostgreSQL().find_program())
        postgres = self.program("postgres", directory=self.make_dir("lib"))
        self.program("pg_config", self.path("lib"))
        self.assertEqual(PostgreSQL().find_program(), postgres)

    def test_of_several_versions_the_newest_is_taken(self) -> None:
        for version in ("9.6", "15", "16"):
            os.makedirs(self.path(f"lib/{version}/bin"))
            self.program("postgres", directory=self.path(f"lib/{version}/bin"))
        with mock.patch("caseexec.servers.postgresql.declaration._PLACES", (self.path("lib/*/bin"),)):
            self.assertEqual(PostgreSQL().find_program(), self.path("lib/16/bin/postgres"))

    def test_one_that_is_missing_is_an_error_that_says_how_to_install_it(self) -> None:
        class Case(ServicesMixin, unittest.TestCase):
            cache = Redis()

            def test_it(self) -> None: ...

        found = masked(self.the_error(Case)).replace(self.bin, "PATH")
        where = f"{__name__}.{Case.__qualname__}.cache"
        self.assertIn(
            f"""caseexec.errors.CommandNotFound: {where} could not be started: there is no program redis-server
  Install it (Debian, Ubuntu: apt-get install redis-server; Fedora: dnf install valkey; macOS: brew install redis), or \
change {where}.program. Searched PATH: PATH.
  command: redis-server --bind 127.0.0.1""",
            found,
        )

    def test_its_tests_can_be_skipped_then(self) -> None:
        class Case(ServicesMixin, unittest.TestCase):
            cache = Redis(if_missing="skip")

            def test_it(self) -> None: ...

        with mock.patch.dict(os.environ, {"CASEEXEC_REQUIRE": "0"}):
            result = self.run_class(Case)
        self.assertEqual(
            [reason for _, reason in result.skipped],
            [
                f"{__name__}.{Case.__qualname__}.cache.program: there is no program redis-server. Install it (Debian, "
                "Ubuntu: apt-get install redis-server; Fedora: dnf install valkey; macOS: brew install redis) "
                "(CASEEXEC_REQUIRE=1 makes that an error)"
            ],
        )

    def test_what_must_be_made_first_tells_why_it_could_not(self) -> None:
        self.program_without_template("echo 'initdb: error: no space'; exit 3")

        class Case(ServicesMixin, unittest.TestCase):
            db = PostgreSQL()

            def test_it(self) -> None: ...

        error = self.the_error(Case)
        where = f"{__name__}.{Case.__qualname__}.db"
        self.assertIn(
            f"PreparationFailed: {where} could not be prepared: {self.bin}/initdb exited with status 3", error
        )
        self.assertIn(f"  command: {self.bin}/initdb -D ", error)
        self.assertIn("  last output:\n    initdb: error: no space", error)

    def test_what_leaves_no_space_for_its_own_words_is_told_of(self) -> None:
        self.program_without_template("exit 1")
        self.enterContext(mock.patch("shutil.disk_usage", return_value=mock.Mock(free=4096)))
        launch = Launch(PostgreSQL(), "Case", "db")
        with self.assertRaisesRegex(PreparationFailed, "last output:\n    no space is left in .*/caseexec-"):
            launch.start()

    def test_a_cache_that_cannot_be_used_is_told_of_with_the_service(self) -> None:
        self.program("postgres", "postgres (PostgreSQL) 15.1")
        with mock.patch("caseexec.cache.directory", side_effect=OSError("no space")):
            with self.assertRaisesRegex(OSError, "no space") as caught:
                Launch(PostgreSQL(), "Case", "db").start()
        self.assertEqual(caught.exception.__notes__, ["Case.db could not be started"])

    @unittest.skipIf(os.geteuid() != 0, "it is for root")
    def test_root_runs_postgresql_as_somebody_else(self) -> None:
        self.program("postgres", "postgres (PostgreSQL) 15.1")
        for user in ("root", "no-such-user"):
            with self.assertRaises(DeclarationError) as caught:
                PostgreSQL(user=user).executor(Declared(test_class="Case", port=1, tmp="/tmp/x"))
            told = f"PostgreSQL.user: {user!r} is root, or no user: name one, as PostgreSQL refuses to be run by root"
            self.assertEqual(str(caught.exception), told)
        self.assertEqual(PostgreSQL(user="nobody").tmp_owner(), 65534)


class WhereTests(unittest.TestCase):
    def executor(self, service, port=6379):
        return service.executor(Declared(test_class="Case", port=port, tmp="/tmp/x"))

    def test_redis_tells_where_it_is(self) -> None:
        running = self.executor(Redis())
        self.assertEqual(running.url, "redis://127.0.0.1:6379/0")
        self.assertEqual(
            running.env(),
            {"REDIS_URL": "redis://127.0.0.1:6379/0", "REDIS_HOST": "127.0.0.1", "REDIS_PORT": "6379"},
        )
        self.assertEqual(
            running.django_settings(),
            {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:6379/0"},
        )

    def test_redis_tells_its_password(self) -> None:
        running = self.executor(Redis(password="p:@/ w"))
        self.assertEqual(running.url, "redis://default:p%3A%40%2F%20w@127.0.0.1:6379/0")
        self.assertEqual((running.env()["REDISCLI_AUTH"], running.env()["REDIS_PASSWORD"]), ("p:@/ w", "p:@/ w"))

    def test_a_database_tells_where_it_is(self) -> None:
        found = Database("shop", "127.0.0.1", 5433, "postgres", "secret", print)
        self.assertEqual(found.dsn, "host=127.0.0.1 port=5433 user=postgres password=secret dbname=shop")
        self.assertEqual(found.url, "postgresql://postgres:secret@127.0.0.1:5433/shop")
        self.assertEqual(
            found.env(),
            {
                "PGHOST": "127.0.0.1",
                "PGPORT": "5433",
                "PGUSER": "postgres",
                "PGPASSWORD": "secret",
                "PGDATABASE": "shop",
                "DATABASE_URL": "postgresql://postgres:secret@127.0.0.1:5433/shop",
            },
        )
        self.assertEqual(
            found.django_settings(),
            {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": "127.0.0.1",
                "PORT": "5433",
                "USER": "postgres",
                "PASSWORD": "secret",
                "NAME": "shop",
            },
        )
        self.assertNotIn("secret", repr(found))

    def test_what_is_special_in_a_dsn_or_a_url_is_quoted(self) -> None:
        found = Database("a b", "::1", 5433, "postgres", "it's \\ @/", print)
        self.assertEqual(found.dsn, "host=::1 port=5433 user=postgres password='it\\'s \\\\ @/' dbname='a b'")
        self.assertEqual(found.url, "postgresql://postgres:it%27s%20%5C%20%40%2F@[::1]:5433/a%20b")

    def test_a_name_is_quoted_in_a_statement(self) -> None:
        self.assertEqual(identifier('a"b'), '"a""b"')


class DataDirectoryTests(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.data = DataDirectory(self.tmp)

    def write(self, text: bytes) -> None:
        with open(self.path("postmaster.pid"), "wb") as file:
            file.write(text)

    def is_left(self) -> bool:
        self.data.forget_dead(Deadline(20))
        return os.path.exists(self.path("postmaster.pid"))

    def test_who_is_in_it_has_it(self) -> None:
        server = subprocess.Popen(["sleep", "60"], cwd=self.tmp)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.write(b"%d\n/data\n" % server.pid)
        self.assertEqual(self.data.occupant().pid, server.pid)
        self.assertTrue(self.is_left())

    def test_who_has_the_number_of_a_killed_server_has_it_not(self) -> None:
        self.write(b"%d\n" % os.getpid())
        self.assertIsNone(self.data.occupant())
        self.assertFalse(self.is_left())

    def test_a_killed_server_that_was_not_waited_for_has_it_not(self) -> None:
        server = subprocess.Popen(["true"], cwd=self.tmp)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        self.addCleanup(server.wait)
        self.write(b"%d\n" % server.pid)
        self.assertIsNone(self.data.occupant())
        self.assertFalse(self.is_left())

    def test_what_only_a_server_can_judge_is_left_to_it(self) -> None:
        self.assertFalse(self.is_left())
        for text in (b"", b"4194305\n", b"\xff\xfe\n"):
            self.write(text)
            self.assertIsNone(self.data.occupant())
            self.assertTrue(self.is_left())


@contextmanager
def answering(*answers: bytes):
    """A server that gives these answers, one for each time it is asked; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                for answer in answers:
                    sock.recv(65536)
                    sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


class RedisProbeTests(unittest.TestCase):
    def refusal(self, *answers: bytes, password: str = "") -> str:
        target = mock.Mock(deadline=Deadline(20), listener="any")
        with answering(*answers) as port, self.assertRaises(NotReady) as caught:
            RedisProbe("127.0.0.1", port, password).check(target)
        return str(caught.exception)

    def test_one_that_answers_is_ready(self) -> None:
        with answering(b"+OK\r\n", b"+PONG\r\n") as port:
            RedisProbe("127.0.0.1", port, "secret").check(mock.Mock(deadline=Deadline(20), listener="any"))

    def test_what_it_answers_else_is_told(self) -> None:
        loading = b"-LOADING Redis is loading the dataset in memory\r\n"
        self.assertEqual(self.refusal(loading), "LOADING Redis is loading the dataset in memory")
        self.assertEqual(self.refusal(b"-WRONGPASS no\r\n", password="x"), "WRONGPASS no")
        self.assertEqual(self.refusal(b"HTTP/1.1 400\r\n"), "it does not speak Redis's protocol: 'HTTP/1.1 400'")
        self.assertEqual(self.refusal(b""), "connection closed without an answer")

    def test_it_says_what_is_awaited(self) -> None:
        self.assertEqual(str(RedisProbe("127.0.0.1", 1, "secret")), "Redis to answer a PING at 127.0.0.1:1")
        self.assertNotIn("secret", repr(RedisProbe("127.0.0.1", 1, "secret")))


def message(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack("!ci", kind, len(body) + 4) + body


READY = message(b"R", struct.pack("!i", 0)) + message(b"S", b"server_version\x0015.1\0") + message(b"Z", b"I")


class SessionTests(unittest.TestCase):
    def session(self, port: int, password: str = "") -> Session:
        deadline = Deadline(20)
        sock = connected("127.0.0.1", port, 20, deadline)
        try:
            return Session(Wire(sock, deadline), "postgres", "postgres", password)
        except BaseException:
            sock.close()
            raise

    def refusal(self, *answers: bytes) -> str:
        with answering(*answers) as port, self.assertRaises(ServerRefused) as caught:
            self.session(port)
        return str(caught.exception)

    def test_a_query_returns_rows_of_text(self) -> None:
        row = message(b"D", struct.pack("!hi2si", 2, 2, b"42", -1))
        with answering(READY, message(b"T") + row + message(b"C") + message(b"Z", b"I")) as port:
            with closing(self.session(port)) as session:
                self.assertEqual(session.query("SELECT 42, NULL"), [("42", None)])
                self.assertEqual(session.parameters, {"server_version": "15.1"})

    def test_a_password_is_given_to_who_wants_it_in_the_clear(self) -> None:
        with answering(message(b"R", struct.pack("!i", 3)), READY) as port:
            self.session(port, "secret").close()

    def test_the_servers_own_words_are_told(self) -> None:
        starting = message(b"E", b"SFATAL\0C57P03\0Mthe database system is starting up\0\0")
        self.assertEqual(self.refusal(starting), "the database system is starting up")
        self.assertEqual(self.refusal(message(b"E", b"\0")), "an error without words")

    def test_a_way_to_log_in_that_is_not_known_is_told(self) -> None:
        self.assertEqual(
            self.refusal(message(b"R", struct.pack("!i", 7))), "it wants a way to log in that is not known here (7)"
        )

    def test_what_speaks_something_else_is_told(self) -> None:
        told = "it does not speak PostgreSQL's protocol (ValueError)"
        self.assertEqual(self.refusal(b"HTTP/1.1 400 Bad Request\r\n"), told)
        self.assertEqual(self.refusal(message(b"Z", b"I")), told)
        self.assertEqual(self.refusal(message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"), message(b"R", struct.pack("!i", 11) + b"x=y")),
                         "it does not speak PostgreSQL's protocol (KeyError)")  # fmt: skip
