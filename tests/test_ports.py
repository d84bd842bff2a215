import contextlib
import errno
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from collections.abc import Iterator
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from caseexec import ports, processes, record
from caseexec.errors import RecordWarning
from caseexec.ports import leases, listening
from caseexec.record import leases as lease_files
from caseexec.record import place
from tests.helpers.leaks import NothingRemains, quickly, soon
from tests.helpers.programs import SLEEP


def a_listener(host: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind((host, 0))
    sock.listen()
    return sock


class LeaseCase(NothingRemains):
    """Has a directory for the leases that is gone after each test."""

    def setUp(self) -> None:
        super().setUp()
        runtime = self.make_dir("runtime")
        patch = mock.patch.dict(os.environ, XDG_RUNTIME_DIR=runtime)
        patch.start()
        self.addCleanup(patch.stop)
        self.where = record.lease_directory()
        self.addCleanup(lambda: self.assertEqual(os.listdir(runtime), [], "leases remain"))

    def leased(self) -> list[str]:
        """What is in the directory."""
        try:
            return sorted(os.listdir(self.where))
        except FileNotFoundError:
            return []

    def file(self, port: int) -> str:
        return record.lease_path(self.where, port)

    def holder(self, port: int) -> str:
        """What the file of a lease says."""
        with open(self.file(port)) as file:
            return file.read()

    def put(self, port: int, content: bytes | str) -> None:
        """A lease of somebody else's making, until the end of the test."""
        content = content.encode() if isinstance(content, str) else content
        os.makedirs(self.where, 0o700, exist_ok=True)
        with open(self.file(port), "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
        self.addCleanup(self.remove, port)

    def remove(self, port: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.file(port))
        with contextlib.suppress(OSError):
            os.rmdir(self.where)

    def sleeper(self) -> processes.Identity:
        """Another process, which lives until the end of the test."""
        process = subprocess.Popen(SLEEP)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return processes.table().status(process.pid).identity

    def dead(self) -> processes.Identity:
        """A process that has lived."""
        process = subprocess.Popen(SLEEP)
        identity = processes.table().status(process.pid).identity
        process.kill()
        process.wait()
        return identity

    def of(self, identity: processes.Identity, system: str = "") -> str:
        """A lease of a process."""
        return f"{identity.pid} {identity.born} {system or record.system()}\n"

    def offer(self, *candidates: int):
        """Make :func:`ports.free_port` choose among these."""
        return mock.patch.object(leases, "_candidates", lambda host: iter(candidates))

    def free_ports(self, number: int) -> list[int]:
        """Ports that are free, and not leased."""
        found = [ports.free_port() for _ in range(number)]
        for port in found:
            ports.release(port)
        return found

    def leases_of(self, *candidates: int) -> list[int]:
        """Which of these are leased when each is asked for, in this order."""
        found = []
        for port in candidates:
            with self.offer(port), contextlib.suppress(OSError):
                found.append(self.lease())
        return found


class LeaseTests(LeaseCase):
    def test_a_leased_port_is_free_and_below_those_of_outgoing_connections(self) -> None:
        port = self.lease()
        self.assertTrue(ports.is_free("127.0.0.1", port))
        self.assertTrue(10_000 <= port < leases._lowest_ephemeral())

    def test_no_port_is_leased_twice_by_many_threads(self) -> None:
        leased: list[int] = []
        threads = [threading.Thread(target=lambda: leased.extend(self.lease() for _ in range(50))) for _ in range(8)]
        # From so few that they meet.
        with mock.patch.object(leases, "_lowest_ephemeral", return_value=11_100):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(len(set(leased)), 400)
        self.assertEqual(self.leased(), sorted(f"port-{port}" for port in leased))

    def test_seeding_the_random_module_does_not_repeat_leases(self) -> None:
        random.seed(1)
        first = self.lease()
        ports.release(first)
        random.seed(1)
        second, third = self.lease(), self.lease()
        self.assertNotEqual((first, first), (second, third))

    def test_one_that_is_leased_is_not_leased_again_before_its_release(self) -> None:
        port = self.lease()
        with self.offer(port), self.assertRaises(OSError):
            ports.free_port()
        ports.release(port)
        with self.offer(port):
            self.assertEqual(self.lease(), port)

    def test_a_port_in_use_is_not_leased(self) -> None:
        with a_listener() as sock:
            used, (free,) = sock.getsockname()[1], self.free_ports(1)
            with self.offer(used, free):
                self.assertEqual(self.lease(), free)
            self.assertEqual(self.leased(), [f"port-{free}"])

    def test_where_every_port_is_for_outgoing_connections_the_system_chooses(self) -> None:
        with mock.patch.object(leases, "_lowest_ephemeral", return_value=1024):
            port = self.lease()
        self.assertTrue(ports.is_free("127.0.0.1", port))

    def test_a_port_that_remembers_a_connection_is_free_for_most_servers_and_not_leased(self) -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            port = sock.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                sock.accept()[0].close()  # Who closes first, remembers.
                client.recv(1)
        self.assertTrue(ports.is_free("127.0.0.1", port))
        self.assertFalse(ports.is_free("127.0.0.1", port, remembering=False))
        self.assertEqual(self.leases_of(port), [])

    def test_a_copy_of_the_socket_that_asked_neither_answers_nor_is_in_the_way(self) -> None:
        copies = []

        class Copied(socket.socket):
            def close(copied) -> None:  # As if another thread had forked a child just before.
                if copied.fileno() >= 0:
                    copies.append(os.dup(copied.fileno()))
                    self.addCleanup(os.close, copies[-1])
                super().close()

        for port, remembering in zip(self.free_ports(2), (True, False), strict=True):
            with mock.patch.object(leases.socket, "socket", Copied):
                self.assertTrue(ports.is_free("127.0.0.1", port, remembering=remembering))
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
                sock.listen()
        self.assertEqual(len(copies), 2)

    def test_no_free_port_is_an_error(self) -> None:
        with self.offer(), self.assertRaisesRegex(OSError, r"no free port on 127\.0\.0\.1"):
            ports.free_port()

    def test_a_host_of_another_machine_is_an_error_and_nothing_is_leased(self) -> None:
        with self.assertRaises(OSError):
            ports.is_free("192.0.2.1", 12345)
        before = dict(leases._leased)
        with self.assertRaises(OSError):
            ports.free_port("192.0.2.1")
        self.assertEqual((self.leased(), leases._leased), ([], before))


class FileTests(LeaseCase):
    def test_it_names_the_process_and_nobody_else_can_read_it_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        port = self.lease()
        self.assertEqual(self.holder(port), self.of(processes.table().status(os.getpid()).identity))
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (self.where, self.file(port))]
        self.assertEqual(modes, [0o700, 0o600])
        self.assertEqual(self.leased(), [f"port-{port}"])

    def test_it_appears_whole(self) -> None:
        whole, seen = record.lease_holder(), set()
        link = os.link

        def look(new: str, path: str) -> None:
            self.assertFalse(os.path.lexists(path))
            link(new, path)
            with open(path) as file:
                seen.add(file.read())

        with mock.patch.object(os, "link", look):
            self.lease()
        self.assertEqual(seen, {whole})

    def test_it_goes_with_the_release_and_the_directory_with_the_last_one(self) -> None:
        first, second = self.lease(), self.lease()
        ports.release(first)
        self.assertEqual(self.leased(), [f"port-{second}"])
        ports.release(second)
        self.assertFalse(os.path.exists(self.where))
        ports.release(second)
        ports.release(1)

    def test_the_directory_of_a_record_stays(self) -> None:
        run = record.RunRecord(id="c0de", pid=os.getpid(), born=1, system=record.system())
        record.write(run, self.where)
        ports.release(ports.free_port())
        self.assertEqual(self.leased(), ["c0de.json"])
        record.remove("c0de", self.where)

    def test_it_is_given_back_where_it_was_made(self) -> None:
        port = ports.free_port()
        other = self.make_dir("other")
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=other), mock.patch.object(tempfile, "tempdir", other):
            self.assertNotEqual(record.directory(), self.where)
            beside = ports.free_port()
            self.assertEqual(os.listdir(record.directory()), [f"port-{beside}"])
            ports.release(port)
            self.assertFalse(os.path.exists(self.where))
        ports.release(beside)
        self.assertEqual(os.listdir(other), [])

    def test_a_relative_one_is_given_back_from_anywhere(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.tmp)
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=""), mock.patch.object(tempfile, "tempdir", "tmp"):
            port = ports.free_port()
            os.chdir("/")
            ports.release(port)

    def test_one_that_was_removed_by_hand_and_leased_by_another_stays_the_others(self) -> None:
        port = ports.free_port()
        theirs = self.of(self.sleeper())
        self.put(port, theirs)
        ports.release(port)
        self.assertEqual(self.holder(port), theirs)

    def test_one_that_was_removed_by_hand_is_no_error(self) -> None:
        port = ports.free_port()
        self.remove(port)
        ports.release(port)

    def test_a_directory_that_is_removed_meanwhile_is_made_again(self) -> None:
        opened, times = os.open, iter(range(5))

        def open_late(path, flags, *mode, **options):
            if flags & os.O_CREAT and next(times, None) is not None:
                os.rmdir(self.where)
            return opened(path, flags, *mode, **options)

        with mock.patch.object(os, "open", open_late):
            port = self.lease()
        self.assertEqual(self.leased(), [f"port-{port}"])

    def test_a_new_one_that_is_tidied_away_before_it_is_in_its_place_is_written_again(self) -> None:
        link, times = os.link, iter(range(5))

        def link_late(new: str, path: str) -> None:
            if next(times, None) is not None:
                record.prune_leases(self.where)
                self.assertFalse(os.path.exists(new))
            link(new, path)

        with mock.patch.object(os, "link", link_late):
            port = self.lease()
        self.assertEqual(self.leased(), [f"port-{port}"])


class OthersTests(LeaseCase):
    """Leases of other processes."""

    def setUp(self) -> None:
        super().setUp()
        # Leases of the dead are removed before the first one in a directory; here they come later.
        self.lease()
        self.first, self.second = self.free_ports(2)

    def assert_taken(self) -> None:
        with self.offer(self.first, self.second):
            self.assertEqual(self.lease(), self.second)

    def assert_reclaimed(self) -> None:
        with self.offer(self.first, self.second):
            self.assertEqual(self.lease(), self.first)
        self.assertEqual(self.holder(self.first), record.lease_holder())

    def test_that_of_a_live_process_is_not_given_out(self) -> None:
        sleeper = self.sleeper()
        self.put(self.first, self.of(sleeper))
        self.assert_taken()
        self.assertEqual(self.holder(self.first), self.of(sleeper))

    def test_nor_is_that_of_one_that_is_stopped(self) -> None:
        sleeper = self.sleeper()
        os.kill(sleeper.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
        self.put(self.first, self.of(sleeper))
        self.assert_taken()

    def test_that_of_a_dead_one_is_reclaimed(self) -> None:
        self.put(self.first, self.of(self.dead()))
        self.assert_reclaimed()

    def test_so_it_is_when_nobody_has_waited_for_the_dead(self) -> None:
        sleeper = self.sleeper()
        self.put(self.first, self.of(sleeper))
        os.kill(sleeper.pid, signal.SIGKILL)
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        self.assert_reclaimed()

    def test_and_when_a_later_process_has_the_number_of_the_dead(self) -> None:
        sleeper = self.sleeper()
        self.put(self.first, self.of(sleeper._replace(born=sleeper.born - 1)))
        self.assert_reclaimed()

    def test_so_it_is_with_start_times_as_psutil_tells_them(self) -> None:
        table = processes.Portable()
        with mock.patch.object(processes, "table", return_value=table):
            sleeper = table.status(self.sleeper().pid).identity
            self.assertIsInstance(sleeper.born, float)
            self.put(self.first, self.of(sleeper))
            self.assert_taken()
            ports.release(self.second)
            self.put(self.first, self.of(sleeper._replace(born=sleeper.born - 0.01)))
            with self.offer(self.first, self.second):
                self.assertEqual(self.lease(), self.first)

    def test_of_an_earlier_life_of_the_machine_all_are_dead_and_elsewhere_they_live(self) -> None:
        sleeper, dead = self.sleeper(), self.dead()
        with mock.patch.object(place, "system", return_value="host machine boot2 pid:[1]"):
            for system, taken in (
                ("host machine boot1 pid:[1]", False),
                ("host machine boot1 pid:[2]", False),
                ("host machine boot2 pid:[2]", True),
                ("other machine boot1 pid:[1]", True),
                ("host other boot2 pid:[1]", True),
                ("host", True),
            ):
                for identity in (sleeper, dead):
                    with self.subTest(system, identity=identity):
                        self.put(self.first, self.of(identity, system))
                        self.assertEqual(record.take_lease(self.file(self.first), "we\n"), not taken)

    def test_one_that_is_dead_is_left_while_another_process_tidies_up(self) -> None:
        self.put(self.first, self.of(self.dead()))
        with lease_files._locked(self.where), quickly(self, 5):
            self.assert_taken()
            record.prune_leases(self.where)
            self.assertIn(f"port-{self.first}", self.leased())
        self.assert_reclaimed()

    def test_who_has_patience_waits_until_that_is_done(self) -> None:
        self.put(self.first, self.of(self.dead()))
        done, locked = threading.Event(), threading.Event()

        def tidy() -> None:
            with lease_files._locked(self.where):
                locked.set()
                done.wait()

        other = threading.Thread(target=tidy)
        other.start()
        locked.wait()
        threading.Timer(0.1, done.set).start()
        record.prune_leases(self.where, patience=60)
        self.assertNotIn(f"port-{self.first}", self.leased())
        other.join()

    def test_a_child_that_was_forked_while_it_was_locked_does_not_keep_it_so(self) -> None:
        with lease_files._locked(self.where):
            child = os.fork()
            if child == 0:
                signal.pause()
        try:
            with lease_files._locked(self.where):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_a_directory_that_was_put_in_the_place_of_the_locked_one_is_not_touched(self) -> None:
        dead = self.of(self.dead())
        self.put(self.first, dead)
        read = lease_files._read

        def read_late(name: str, directory: int) -> str:
            found = read(name, directory)
            os.rename(self.where, self.path("former"))
            os.mkdir(self.where, 0o700)
            self.put(self.first, "another's")
            return found

        with mock.patch.object(lease_files, "_read", read_late):
            self.assertTrue(lease_files._remove_ended(self.where, f"port-{self.first}"))
        self.assertEqual(self.holder(self.first), "another's")
        self.assertNotIn(f"port-{self.first}", os.listdir(self.path("former")))

    def test_those_of_the_dead_are_removed_before_the_first_lease_in_a_directory(self) -> None:
        dead, live = self.of(self.dead()), self.of(self.sleeper())
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=self.make_dir("other")):
            other = record.directory()
            os.mkdir(other, 0o700)
            for name, content in (("port-1", dead), ("port-2", live), ("port-3.0badf00d", ""), ("x.json", dead)):
                with open(os.path.join(other, name), "w") as file:
                    file.write(content)
            port = self.lease()
            self.assertEqual(sorted(os.listdir(other)), sorted(["port-2", "x.json", f"port-{port}"]))


class GarbageTests(LeaseCase):
    """Whatever lies in the place of a lease counts as one."""

    def setUp(self) -> None:
        super().setUp()
        self.lease()
        self.first, self.second = self.free_ports(2)

    def assert_taken_and_left(self) -> None:
        self.assertEqual(self.leases_of(self.first, self.second), [self.second])
        ports.release(self.second)
        record.prune_leases(self.where)
        self.assertIn(f"port-{self.first}", self.leased())

    def test_what_is_no_lease(self) -> None:
        system = record.system()
        for content in (
            *("", "\n", "garbage", "1", "1 2", "a b c", f"a 1 {system}", f"1 a {system}", f"0 0 {system}"),
            *(f"-1 1 {system}", f"1.5 1 {system}", "{}", "[" * 100_000, b"\xff\xfe\x00", b"\0" * 4096, "9" * 10_000),
            *(f"{'9' * 5000} 1 {system}", self.of(self.dead())[:-10], " ".join(["1"] * 1000)),
        ):
            with self.subTest(content[:30]):
                self.put(self.first, content)
                self.assert_taken_and_left()

    def test_what_is_no_file_and_keeps_nobody_waiting(self) -> None:
        path = self.file(self.first)
        with open(self.path("dead"), "w") as file:
            file.write(self.of(self.dead()))
        for make, remove in (
            (lambda: os.mkfifo(path), os.unlink), (lambda: os.mkdir(path), os.rmdir),
            (lambda: os.symlink(self.path("dead"), path), os.unlink), (lambda: os.symlink("never", path), os.unlink),
        ):  # fmt: skip
            make()
            with quickly(self, 5):
                self.assert_taken_and_left()
            remove(path)
        self.assertTrue(os.path.exists(self.path("dead")))

    def test_what_cannot_be_read(self) -> None:
        self.put(self.first, self.of(self.dead()))
        opened, unreadable = os.open, (f"port-{self.first}", self.file(self.first))

        def open_some(path, flags, *mode, **options):
            if path in unreadable and not flags & os.O_CREAT:
                raise PermissionError(13, "Permission denied")
            return opened(path, flags, *mode, **options)

        with mock.patch.object(os, "open", open_some):
            self.assert_taken_and_left()

    def test_one_whose_process_cannot_be_looked_at_now(self) -> None:
        self.put(self.first, self.of(self.dead()))
        with mock.patch.object(processes.table(), "status", side_effect=OSError(24, "Too many open files")):
            self.assert_taken_and_left()

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.binary(max_size=200) | st.builds("{} {} {}".format, st.integers(), st.floats(), st.text()))
    def test_anything(self, content: bytes | str) -> None:
        content = content if isinstance(content, bytes) else content.encode(errors="replace")
        path = os.path.join(self.path("runtime"), "caseexec", "port-1")
        with open(path, "wb") as file:
            file.write(content)
        try:
            self.assertFalse(record.take_lease(path, "we\n"))
        finally:
            os.unlink(path)

    def test_a_name_of_the_machine_that_is_no_text_is_one_all_the_same(self) -> None:
        with mock.patch.object(place, "system", return_value=os.fsdecode(b"caf\xe9 machine boot pid:[1]")):
            holder = record.lease_holder()
            self.assertTrue(record.take_lease(self.file(self.first), holder))
            self.assertFalse(record.take_lease(self.file(self.first), "we\n"))
            record.give_back_lease(self.file(self.first), holder)
        self.assertNotIn(f"port-{self.first}", self.leased())


class ForkTests(LeaseCase):
    def in_child(self, act, meanwhile=lambda: None) -> None:
        """Run it in a forked child; it must not raise. The parent does something meanwhile."""
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(20)
                act()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(1)
        meanwhile()
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_child_gives_none_of_its_parents_back(self) -> None:
        port = self.lease()

        def child() -> None:
            ports.release(port)
            ports.release_all()
            with self.offer(port), contextlib.suppress(OSError):
                raise AssertionError(f"it has leased {ports.free_port()}")

        self.in_child(child)
        self.assertEqual(self.leased(), [f"port-{port}"])

    def test_its_own_are_its_own(self) -> None:
        port = self.lease()

        def child() -> None:
            own = ports.free_port()
            self.assertEqual(self.leased(), sorted([f"port-{port}", f"port-{own}"]))
            self.assertEqual(self.holder(own), record.lease_holder())
            self.assertNotEqual(self.holder(own), self.holder(port))
            ports.release_all()

        self.in_child(child)
        self.assertEqual(self.leased(), [f"port-{port}"])

    def test_it_begins_with_none(self) -> None:
        port = ports.free_port()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)

        def child() -> None:
            told: list[object] = []
            ports.watch(lambda *facts: told.append(facts))
            self.assertEqual(told, [])
            os.write(write, b".")
            self.assertTrue(soon(lambda: not self.leased()))
            with self.offer(port):
                self.assertEqual(ports.free_port(), port)
            ports.release_all()

        def give_back_when_asked() -> None:
            os.read(read, 1)
            ports.release(port)

        self.in_child(child, give_back_when_asked)

    def test_one_that_was_forked_while_another_thread_leases_can_lease(self) -> None:
        self.lease()
        locked, done = threading.Event(), threading.Event()

        def hold() -> None:
            with leases._lock:
                locked.set()
                done.wait()

        other = threading.Thread(target=hold)
        other.start()
        locked.wait()
        try:
            self.in_child(lambda: ports.release(ports.free_port()))
        finally:
            done.set()
            other.join()

    def test_it_does_not_tell_the_reaper_of_its_parent(self) -> None:
        told: list[object] = []
        with mock.patch.object(leases, "_watchers", [lambda *facts: told.append(facts)]):
            self.in_child(lambda: (ports.release(ports.free_port()), self.assertEqual(told, [])))


class WatchTests(LeaseCase):
    def setUp(self) -> None:
        super().setUp()
        for patch in (mock.patch.object(leases, "_watchers", []), mock.patch.object(leases, "_told", set())):
            patch.start()
            self.addCleanup(patch.stop)
        self.told: list[list[str]] = []

    def tell(self, where: list[str], holder: str) -> None:
        self.assertEqual(holder, record.lease_holder())
        self.told.append(where)

    def test_it_tells_before_the_first_lease(self) -> None:
        ports.watch(self.tell)
        self.assertEqual(self.told, [])
        with mock.patch.object(os, "link", side_effect=lambda *_: self.assertEqual(self.told, [[self.where]]) or 1 / 0):
            with self.assertRaises(ZeroDivisionError):
                ports.free_port()
        self.lease()
        self.assertEqual(self.told, [[self.where]])

    def test_and_at_once_of_those_of_before(self) -> None:
        self.lease()
        ports.watch(self.tell)
        self.assertEqual(self.told, [[self.where]])

    def test_a_directory_without_leases_is_forgotten_when_another_is_used(self) -> None:
        ports.watch(self.tell)
        self.lease()
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=self.make_dir("b")):
            ports.release(ports.free_port())
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=self.make_dir("c")):
            ports.release(ports.free_port())
        a, b, c = (self.path(name) + "/caseexec" for name in ("runtime", "b", "c"))
        self.assertEqual(self.told, [[a], [b, a], [c, a]])


class FallbackTests(LeaseCase):
    """The directory can't be used."""

    TEXT = ("{0} is ignored: no record of this run can be kept there, for 'python -m caseexec ps' and 'reap', nor its "
            "leases of ports, so that a run beside it may get the same ports: ")  # fmt: skip
    REMEDY = "; set XDG_RUNTIME_DIR to a directory that you can write to"

    def setUp(self) -> None:
        super().setUp()
        self.before = dict(leases._leased)
        self.addCleanup(lambda: self.assertEqual(leases._leased, self.before))

    @contextlib.contextmanager
    def told_once(self, text: str) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.assertEqual([str(warning.message) for warning in caught], [self.TEXT.format(self.where) + text])
        self.assertEqual({warning.category for warning in caught}, {RecordWarning})

    def test_one_that_others_can_enter_is_told_once_and_leases_are_known_to_the_process_only(self) -> None:
        os.mkdir(self.where, 0o755)
        with self.told_once(f"{self.where} can be entered by other users; remove it, or: chmod 700 {self.where}"):
            first, second = self.lease(), self.lease()
        self.assertEqual(self.leases_of(first, second), [])
        self.assertEqual(self.leased(), [])
        ports.release(first)
        self.assertEqual(self.leases_of(first), [first])
        os.rmdir(self.where)

    def test_the_lease_and_the_record_of_one_run_are_told_together(self) -> None:
        from caseexec.scopes import Launch
        from caseexec.service import CommandService

        with open(self.where, "w"):
            pass
        with self.told_once(f"{self.where} is no directory; remove it"):
            for _ in range(2):
                launch = Launch(CommandService("sleep 300 {port}", check="true"), "a.A")
                launch.start()
                launch.stop()
        os.unlink(self.where)

    def test_a_link_is_not_followed(self) -> None:
        os.symlink(self.make_dir("elsewhere"), self.where)
        with self.told_once(f"{self.where} is no directory but a link; remove it"):
            self.lease()
        self.assertEqual(os.listdir(self.path("elsewhere")), [])
        os.unlink(self.where)

    def test_where_nothing_can_be_written_nothing_half_done_stays(self) -> None:
        for name, error in (
            ("link", PermissionError(1, "Operation not permitted")),
            ("mkdir", OSError(30, "Read-only")),
        ):
            with self.subTest(name), mock.patch.object(place, "_told", set()):
                with mock.patch.object(os, name, side_effect=error), self.told_once(f"{error}{self.REMEDY}"):
                    port = self.lease()
                self.assertFalse(os.path.exists(self.where))
                ports.release(port)

    def test_who_has_no_descriptor_left_is_not_sent_elsewhere(self) -> None:
        error = OSError(errno.EMFILE, "Too many open files")
        with mock.patch.object(os, "link", side_effect=error), self.told_once(str(error)):
            ports.release(ports.free_port())

    def test_it_is_used_as_soon_as_it_can_be(self) -> None:
        os.mkdir(self.where, 0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ports.release(ports.free_port())
        os.chmod(self.where, 0o700)
        port = self.lease()
        self.assertEqual(self.leased(), [f"port-{port}"])

    def test_a_warning_that_is_an_error_leaves_no_lease(self) -> None:
        os.mkdir(self.where, 0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with self.assertRaises(RecordWarning):
                ports.free_port()
            self.assertEqual(leases._leased, self.before)
            self.lease()
        os.rmdir(self.where)

    def test_without_a_temporary_directory_it_is_told_too(self) -> None:
        self.where = f"caseexec-{os.getuid()}"
        error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
        with mock.patch.object(record, "lease_directory", side_effect=error):
            with self.told_once(f"{error}{self.REMEDY}"):
                self.lease()

    def test_a_forked_child_leases_none_that_only_its_parent_knows(self) -> None:
        os.mkdir(self.where, 0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            port = self.lease()
            child = os.fork()
            if child == 0:
                try:
                    os._exit(self.leases_of(port) != [])
                finally:
                    os._exit(2)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        os.rmdir(self.where)

    def test_a_machine_without_users_has_leases_of_the_process(self) -> None:
        with mock.patch.object(os, "getuid"):
            del os.getuid
            port = self.lease()
        self.assertEqual((self.leases_of(port), self.leased()), ([], []))


class ListenersTests(unittest.TestCase):
    def test_a_free_port_has_no_listener(self) -> None:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        self.assertEqual(ports.listeners("127.0.0.1", port), [])

    @unittest.skipUnless(sys.platform == "linux", "sock_diag is Linux's")
    def test_the_listener_is_named_by_its_inode(self) -> None:
        with a_listener() as sock:
            (found,) = ports.listeners("127.0.0.1", sock.getsockname()[1])
            self.assertEqual(found.inode, os.fstat(sock.fileno()).st_ino)
            self.assertEqual(found.uid, os.getuid())

    def test_psutil_tells_the_same(self) -> None:
        with a_listener() as sock, mock.patch.object(listening.sys, "platform", "other"):
            (found,) = ports.listeners("127.0.0.1", sock.getsockname()[1])
            self.assertEqual((found.host, found.pid), ("127.0.0.1", os.getpid()))

    def test_one_on_every_address_counts_when_nobody_is_nearer(self) -> None:
        with a_listener("0.0.0.0") as sock:
            self.assertEqual([found.host for found in ports.listeners("127.0.0.1", sock.getsockname()[1])], ["0.0.0.0"])

    def test_one_on_another_address_does_not_count(self) -> None:
        with a_listener("127.0.0.2") as sock:
            self.assertEqual(ports.listeners("127.0.0.1", sock.getsockname()[1]), [])

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "no IPv6 here")
    def test_one_on_every_ipv6_address_takes_ipv4_connections_too(self) -> None:
        with a_listener("::", socket.AF_INET6) as sock:
            self.assertEqual([found.host for found in ports.listeners("127.0.0.1", sock.getsockname()[1])], ["::"])

    def test_a_name_is_looked_up(self) -> None:
        with a_listener() as sock:
            self.assertEqual(len(ports.listeners("localhost", sock.getsockname()[1])), 1)

    @unittest.skipUnless(sys.platform == "linux", "sock_diag is Linux's")
    def test_where_the_kernel_does_not_tell_nobody_is_seen(self) -> None:
        with a_listener() as sock, mock.patch.object(listening, "_netlink", side_effect=OSError):
            self.assertEqual(ports.listeners("127.0.0.1", sock.getsockname()[1]), [])
