import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import unittest
from unittest import mock

from caseexec import errors, ports
from caseexec.executors.fate import Cancelled
from caseexec.registry import current_run
from caseexec.scopes import Launch, Services, Told, keeping
from caseexec.scopes.together import in_order
from caseexec.service import CommandService, OutputService, PidService, Plan, Service, TCPService
from tests.helpers.leaks import NothingRemains, alive, soon
from tests.helpers.programs import EXIT_3, TCP_SERVER, python
from tests.helpers.runs import ROOT


class InOrderTests(unittest.TestCase):
    def test_each_comes_after_what_it_needs(self) -> None:
        done: list[str] = []
        in_order({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": [], "e": ["a"]}, done.append)
        self.assertEqual((done[0], set(done[1:3]), done[3:]), ("d", {"b", "c"}, ["a", "e"]))

    def test_those_that_do_not_need_each_other_are_under_way_at_once(self) -> None:
        meeting = threading.Barrier(4, timeout=20)
        in_order(dict.fromkeys("abcd", ()), lambda name: meeting.wait())

    def test_one_that_is_alone_is_done_in_this_thread(self) -> None:
        threads: list[object] = []
        in_order({"a": [], "b": ["a"]}, lambda name: threads.append(threading.current_thread()))
        self.assertEqual(threads, [threading.current_thread()] * 2)

    def test_nothing_at_all_is_done_at_once(self) -> None:
        in_order({}, lambda name: self.fail(name))

    def test_after_a_failure_those_under_way_are_cancelled_and_no_other_begins(self) -> None:
        begun, cancelled = [], threading.Event()

        def work(name: str) -> None:
            begun.append(name)
            if name == "bad":
                raise ValueError(name)
            self.assertTrue(cancelled.wait(20))
            raise Cancelled(name)

        with self.assertRaises(ValueError) as caught:
            in_order({"bad": [], "slow": [], "never": ["slow"]}, work, lambda name: cancelled.set())
        self.assertEqual(sorted(begun), ["bad", "slow"])
        self.assertEqual(getattr(caught.exception, "__notes__", []), [], "to have been cancelled is no error")

    def test_without_cancelling_all_others_are_done(self) -> None:
        done = []

        def work(name: str) -> None:
            done.append(name)
            raise ValueError(name)

        with self.assertRaises(ValueError) as caught:
            in_order({"a": [], "b": ["a"], "c": ["b"]}, work)
        self.assertEqual((str(caught.exception), done), ("a", ["a", "b", "c"]))
        self.assertEqual(caught.exception.__notes__, ["And also:\nValueError: b", "And also:\nValueError: c"])

    def test_an_interrupt_is_raised_and_nothing_more_begun(self) -> None:
        done = []

        def work(name: str) -> None:
            done.append(name)
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            in_order({"a": [], "b": ["a"]}, work)
        self.assertEqual(done, ["a"])

    def test_an_interrupt_at_any_moment_is_raised_and_does_not_hang(self) -> None:
        for _ in range(200):
            started = threading.Event()

            def work(name: str, started=started) -> None:
                if name == "b":
                    os.kill(os.getpid(), signal.SIGINT)
                started.wait(0.001)

            with self.assertRaises(KeyboardInterrupt):
                in_order(dict.fromkeys("abc", ()), work, lambda name, started=started: started.set())
                while True:  # It may come a moment later.
                    started.wait(0.001)

    def test_one_whose_start_was_interrupted_does_nothing_when_it_comes_to_life(self) -> None:
        start, late, done = threading.Thread.start, [], []

        def interrupted(thread: threading.Thread) -> None:
            late.append(thread)
            raise KeyboardInterrupt

        with mock.patch.object(threading.Thread, "start", interrupted), self.assertRaises(KeyboardInterrupt):
            in_order({"a": [], "b": []}, done.append)
        for thread in late:
            start(thread)
            thread.join()
        self.assertEqual((len(late), done), (1, []))

    def test_or_is_waited_for(self) -> None:
        start, done, working, cancelled = threading.Thread.start, [], threading.Event(), threading.Event()

        def work(name: str) -> None:
            working.set()
            cancelled.wait(60)
            done.append(name)

        def interrupted(thread: threading.Thread) -> None:
            start(thread)
            working.wait(60)
            raise KeyboardInterrupt

        with mock.patch.object(threading.Thread, "start", interrupted):
            # As if it had come to life only after the last look.
            with mock.patch.object(threading.Thread, "is_alive", lambda thread: False):
                with self.assertRaises(KeyboardInterrupt):
                    in_order({"a": [], "b": []}, work, lambda name: cancelled.set())
        self.assertEqual(len(done), 1)

    def test_an_interrupt_that_a_lock_hides_in_an_error_of_its_own_is_raised(self) -> None:
        done = []

        def hidden(thread: threading.Thread) -> None:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise RuntimeError("release unlocked lock")

        with mock.patch.object(threading.Thread, "start", hidden), self.assertRaises(KeyboardInterrupt):
            in_order({"a": [], "b": []}, done.append)
        self.assertEqual(done, [])

    def test_one_whose_work_can_be_cancelled_only_later_is_cancelled_then(self) -> None:
        begun, cancelled = threading.Event(), []

        def work(name: str) -> None:
            if name == "bad":
                raise ValueError(name)
            while len(cancelled) < 3:
                begun.wait(0.001)
            raise Cancelled(name)

        with self.assertRaises(ValueError):
            in_order({"bad": [], "slow": []}, work, cancelled.append)

    def test_who_was_interrupted_twice_waits_at_exit_for_those_that_are_under_way(self) -> None:
        program = textwrap.dedent("""
            import threading, time
            from caseexec.scopes import together
            from caseexec.scopes.together import in_order

            together._PATIENCE = 60
            cancelled, working = threading.Event(), threading.Event()

            def work(name):
                working.set()
                cancelled.wait()
                time.sleep(0.2)
                print("done", name)

            def cancel(name):
                cancelled.set()
                raise KeyboardInterrupt  # The second one.

            def fail(name):
                working.wait()
                raise ValueError

            try:
                in_order({"a": [], "bad": []}, lambda name: fail(name) if name == "bad" else work(name), cancel)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """)
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        self.assertEqual((run.stdout.split(), run.stderr), (["interrupted", "done", "a"], ""))

    def test_errors_without_a_text_are_told_of_too(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise TypeError

        def work(name: str) -> None:
            raise ValueError("first") if name == "a" else Mute

        with self.assertRaises(ValueError) as caught:
            in_order({"a": [], "b": ["a"]}, work)
        self.assertEqual(caught.exception.__notes__, ["And also:\nMute: (its text can't be made: TypeError)"])

    def test_where_no_thread_can_be_started_one_is_done_after_the_other(self) -> None:
        done: list[str] = []
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("at shutdown")):
            in_order({"a": [], "b": [], "c": ["a", "b"]}, done.append)
        self.assertEqual(done, ["a", "b", "c"])


def leased_ports() -> list[str]:
    """What this process has leased."""
    return [os.path.basename(path) for path in ports.leases._leased.values()]


class LaunchTests(NothingRemains):
    def launch(self, service) -> Launch:
        launch = Launch(service, "a.A")
        self.addCleanup(launch.discard)
        return launch

    def server(self, **options) -> TCPService:
        command = python(TCP_SERVER.replace("{", "{{").replace("}", "}}"), "{port}")
        return TCPService(command, **options)

    def test_from_its_start_to_its_stop(self) -> None:
        launch = self.launch(self.server())
        executor = launch.start()
        pid, tmp, port = executor.pid, executor.tmp, executor.port
        socket.create_connection((executor.host, port)).close()
        self.assertTrue(os.path.isdir(tmp))
        self.assertEqual(leased_ports(), [f"port-{port}"])
        launch.stop()
        self.assertFalse(alive(pid) or os.path.exists(tmp) or leased_ports())

    def test_a_start_that_fails_gives_everything_back(self) -> None:
        launch = self.launch(TCPService([*EXIT_3, "{port}"]))
        with self.assertRaisesRegex(errors.ProcessExitedWithError, "^a.A exited with status 3"):
            launch.start()
        self.assertEqual(current_run().paths, set())
        self.assertEqual(leased_ports(), [])

    def stolen(self, times: int):
        """The next leases, and somebody who listens on the first ones."""
        leases, thieves = [], []
        for number in range(times + 1):
            leases.append(ports.free_port())
            if number < times:
                thieves.append(socket.socket())
                self.addCleanup(thieves[-1].close)
                thieves[-1].bind(("127.0.0.1", leases[-1]))
                thieves[-1].listen()
        self.addCleanup(lambda: list(map(ports.release, leases)))
        return leases, mock.patch.object(ports, "free_port", side_effect=leases)

    def test_a_leased_port_that_was_lost_is_leased_anew(self) -> None:
        leases, lost = self.stolen(3)
        with lost:
            launch = self.launch(self.server())
            self.assertEqual(launch.start().port, leases[-1])
        self.assertEqual(
            len(os.listdir(self.path("tmp"))), 3, "one {tmp}, one log and the record; none of earlier starts"
        )
        launch.stop()

    def test_so_it_is_for_a_service_whose_own_probe_does_not_look_at_the_port(self) -> None:
        leases, lost = self.stolen(1)
        service = OutputService(self.server().command, banner="listening on {port}")
        with lost:
            launch = self.launch(service)
            self.assertEqual(launch.start().port, leases[-1])
        launch.stop()

    def test_a_stranger_on_the_port_of_such_a_service_is_no_service(self) -> None:
        leases, lost = self.stolen(1)
        service = CommandService("sleep 300", port=leases[0], check="true")
        with lost, self.assertRaisesRegex(errors.AlreadyRunning, f"port 127.0.0.1:{leases[0]} is held by pid"):
            self.launch(service).start()

    def test_a_port_that_is_lost_while_such_a_service_starts_is_noticed(self) -> None:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        thief = socket.socket()
        self.addCleanup(thief.close)
        thief.bind(("127.0.0.1", port))

        def listen(_: object) -> bool:
            thief.listen()
            return True

        with self.assertRaisesRegex(errors.AlreadyRunning, f"is held by pid {os.getpid()} "):
            self.launch(CommandService("sleep 300", port=port, check="true", probe=listen)).start()

    def test_of_a_start_whose_port_was_lost_on_the_way_no_log_stays(self) -> None:
        leases, thief = [ports.free_port(), ports.free_port()], socket.socket()
        self.addCleanup(lambda: list(map(ports.release, leases)))
        self.addCleanup(thief.close)
        thief.bind(("127.0.0.1", leases[0]))

        def listen(_: object) -> bool:
            thief.listen()
            return True

        launch = self.launch(CommandService("sh -c 'echo {port}; sleep 300'", check="true", probe=listen))
        with mock.patch.object(ports, "free_port", side_effect=leases):
            self.assertEqual(launch.start().port, leases[1])
        launch.stop()
        self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_after_three_new_leases_it_is_given_up(self) -> None:
        leases, lost = self.stolen(4)
        with lost, self.assertRaisesRegex(errors.AlreadyRunning, str(leases[3])):
            self.launch(self.server()).start()

    def test_a_port_that_the_class_named_is_not_exchanged(self) -> None:
        leases, lost = self.stolen(1)
        with lost as lease, self.assertRaises(errors.AlreadyRunning):
            self.launch(self.server(port=leases[0])).start()
        lease.assert_not_called()

    def test_a_pid_file_that_is_taken_does_not_lease_anew(self) -> None:
        with open(self.path("p"), "w") as file:
            file.write(str(os.getpid()))
        with self.assertRaises(errors.AlreadyRunning):
            self.launch(PidService("sleep 300 {port}", pid_file=self.path("p"))).start()

    def test_in_a_forked_child_it_gives_nothing_back(self) -> None:
        launch = self.launch(self.server())
        executor = launch.start()
        child = os.fork()
        if child == 0:
            launch.stop()
            launch.discard()
            os._exit(0)
        os.waitpid(child, 0)
        self.assertTrue(os.path.isdir(executor.tmp) and executor.running())
        launch.stop()

    def test_discarding_tells_who_was_alive(self) -> None:
        launch = self.launch(self.server())
        pid = launch.start().pid
        self.assertEqual(launch.discard(), [pid])
        self.assertEqual(launch.discard(), [])

    def test_its_log_is_named_by_the_worker_that_has_it(self) -> None:
        launch = self.launch(self.server())
        with mock.patch.object(current_run(), "worker", "gw3"):
            executor = launch.start()
        self.assertRegex(executor.log_path, r"caseexec-[0-9a-f]{16}\.\d+-gw3-a\.A\.log$")

    def test_what_it_has_had_is_kept_on_demand_unless_it_is_empty(self) -> None:
        kept: list[tuple[str, str]] = []
        with mock.patch.multiple(keeping, everything=True, kept=kept):
            for command, check in (
                ("sh -c 'echo said; echo written >{tmp}/file; exec sleep 300'", "test -s {tmp}/file"),
                ("sleep 300", "test -d {tmp}"),
                ("sh -c 'rmdir {tmp}; exec sleep 300'", "sh -c '! test -d {tmp}'"),
            ):
                launch = self.launch(CommandService(command, check=check))
                launch.start()
                launch.stop()
        self.assertEqual([who for who, _ in kept], ["a.A", "a.A"])
        (_, directory), (_, log) = kept
        self.assertEqual((os.listdir(directory), open(log).read()), (["file"], "said\n"))
        self.assertEqual(current_run().paths, set())
        shutil.rmtree(directory)

    def test_the_directory_of_all_logs_can_be_asked_for_without_the_environment(self) -> None:
        with mock.patch.object(keeping, "log_directory", self.path("logs")):
            launch = self.launch(self.server())
            launch.start()
            launch.stop()
        self.assertRegex(os.listdir(self.path("logs"))[0], r"^[0-9a-f]{16}(-gw\d+)?-a\.A\.log$")


class ToldTests(unittest.TestCase):
    def test_what_services_wrote_can_be_pickled_with_its_error(self) -> None:
        told = Told("both")
        told.parts = [("redis", "text")]
        error = ValueError("x")
        errors.add_note(error, told)
        (copy,) = pickle.loads(pickle.dumps(error)).__notes__
        self.assertEqual((type(copy), copy, copy.parts), (Told, "both", [("redis", "text")]))


class ServicesTests(NothingRemains):
    """The services of something that is no class."""

    def services(self, **declarations: Service) -> Services:
        found = Services(Plan.of(declarations), "shop", moment="the run")
        self.addCleanup(found.discard)
        return found

    def server(self, **options) -> TCPService:
        server = TCP_SERVER.replace("{", "{{").replace("}", "}}")
        return TCPService(python(server, "{port}"), **options)

    def test_they_run_from_the_start_to_the_stop_and_tell_where_they_are(self) -> None:
        web = self.server(env={"OTHER": "{db.address}"})
        services = self.services(web=web, db=self.server())
        self.assertEqual(services.executors(), {})
        services.start()
        executors = services.executors()
        self.assertEqual(list(executors), ["db", "web"])
        self.assertEqual(executors["web"].envvars["OTHER"], executors["db"].address)
        offered = services.offered()
        self.assertEqual(offered["web.port"], str(executors["web"].port))
        services.stop()
        self.assertFalse(any(executor.running() for executor in executors.values()))

    def test_after_a_failed_start_none_runs(self) -> None:
        pids = []
        good = self.server(probe=lambda executor: pids.append(executor.pid) or True)
        bad = OutputService(EXIT_3, banner="never", after=("good",))
        services = self.services(good=good, bad=bad)
        with self.assertRaises(errors.ProcessExitedWithError) as caught:
            services.start()
        self.assertIn("shop.bad exited with status 3", str(caught.exception))
        self.assertFalse(any(map(alive, pids)))
        self.assertEqual(services.executors(), {})

    def test_one_that_has_ended_by_itself_is_told_of_at_the_end(self) -> None:
        services = self.services(web=self.server())
        services.start()
        executor = services.executors()["web"]
        os.kill(executor.pid, signal.SIGKILL)
        self.assertTrue(soon(executor.has_died))
        with self.assertRaises(errors.ServiceDied) as caught:
            services.stop()
        self.assertIn("web was killed by SIGKILL during the run", str(caught.exception))

    def test_discarding_tells_who_was_alive_once(self) -> None:
        services = self.services(web=self.server())
        services.start()
        pid = services.executors()["web"].pid
        self.assertEqual([pids for _, pids in services.discard()], [[pid]])
        self.assertEqual(services.discard(), [])
