import contextlib
import os
import signal
import unittest
from typing import ClassVar

import psutil

from caseexec import CommandServiceMixin, TCPServiceMixin
from tests.integration.servers import GIVE_TO_ORDINARY_USER, ORDINARY_USER, path, require

with contextlib.suppress(ImportError):  # The classes are skipped then.
    import psycopg

# A service that was stopped begins anew with its whole command: what is there already stays.
POSTGRES = f"""
    [ -e data ] ||
        {{ {GIVE_TO_ORDINARY_USER} . && {ORDINARY_USER} initdb -D data -U postgres -A trust --no-sync; }} || exit
    exec {ORDINARY_USER} postgres -D data -c fsync=off -h {{host}} -p {{port}} -k {{tmp}}
"""


class Connecting:
    def connect(self):
        where = {"host": self.service.host, "port": self.service.port, "user": "postgres"}
        connection = psycopg.connect(**where, autocommit=True, connect_timeout=10)
        self.addCleanup(connection.close)
        return connection


@require("postgres", "postgresql", client="psycopg")
class PostgreSQLTests(Connecting, CommandServiceMixin, unittest.TestCase):
    service_shell = True
    service_command = POSTGRES
    service_check = "pg_isready -h {host} -p {port}"
    service_stop_signal = signal.SIGINT  # A fast shutdown: SIGTERM's waits for the clients to go.
    service_cwd = "{tmp}"
    service_env: ClassVar = {"PATH": path(), "LC_ALL": "C.UTF-8"}

    def test_a_row_inserted_is_selected_again(self):
        connection = self.connect()
        connection.execute("CREATE TEMPORARY TABLE fruit (name text)")
        connection.execute("INSERT INTO fruit VALUES (%s)", ["quince"])
        self.assertEqual(connection.execute("SELECT name FROM fruit").fetchall(), [("quince",)])

    def test_what_was_committed_is_there_after_a_restart(self):
        self.connect().execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with self.service.stopped():
            pass
        self.assertEqual(self.connect().execute("SELECT answer FROM kept").fetchone(), (42,))

    def test_it_is_refused_while_it_is_stopped(self):
        with self.service.stopped(), self.assertRaisesRegex(psycopg.OperationalError, "refused"):
            self.connect()

    def test_a_client_that_stays_connected_does_not_hold_up_the_stop(self):
        connection = self.connect()
        with self.service.stopped(), self.assertRaises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    def test_its_helper_processes_belong_to_the_service(self):
        helpers = self.connect().execute("SELECT pid FROM pg_stat_activity").fetchall()
        self.assertLessEqual({pid for (pid,) in helpers}, set(self.service.living()))

    def test_it_does_not_run_as_root(self):
        self.assertNotEqual(psutil.Process(self.service.pid).uids().real, 0)


@require("postgres", "postgresql", client="psycopg")
class PostgreSQLWithAStopCommandTests(Connecting, TCPServiceMixin, unittest.TestCase):
    service_shell = True
    service_command = POSTGRES
    service_stop_command = f"{ORDINARY_USER} pg_ctl stop -D data -m fast"
    service_cwd = "{tmp}"
    service_env: ClassVar = {"PATH": path(), "LC_ALL": "C.UTF-8"}

    def service_probe(service):
        """PostgreSQL accepts connections before it accepts clients."""
        psycopg.connect(host=service.host, port=service.port, user="postgres", connect_timeout=10).close()
        return True

    def test_its_stop_command_disconnects_who_is_connected(self):
        connection = self.connect()
        with self.service.stopped(), self.assertRaises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")

    def test_its_stop_command_ends_it_in_good_order(self):
        with self.service.stopped():
            self.assertFalse(os.path.exists(f"{self.service.tmp}/data/postmaster.pid"))
            self.assertIn("database system is shut down", self.service.tail())
        self.assertNotIn("automatic recovery", self.service.tail())
