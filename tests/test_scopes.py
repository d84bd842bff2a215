import os
import socket
from unittest import mock

from caseexec import errors, ports
from caseexec.registry import current_run
from caseexec.scopes import Launch
from caseexec.service import CommandService, OutputService, PidService, TCPService
from tests.helpers.leaks import NothingRemains, alive
from tests.helpers.programs import EXIT_3, TCP_SERVER, python


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
        launch.stop()
        self.assertFalse(alive(pid) or os.path.exists(tmp) or port in ports._leased)

    def test_a_start_that_fails_gives_everything_back(self) -> None:
        leased = dict(ports._leased)
        launch = self.launch(TCPService([*EXIT_3, "{port}"]))
        with self.assertRaisesRegex(errors.ProcessExitedWithError, "^a.A exited with status 3"):
            launch.start()
        self.assertEqual(current_run().directories, set())
        self.assertEqual(ports._leased, leased)

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
