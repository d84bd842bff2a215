import os
import re
import socket
import subprocess
import threading
import time
from unittest import mock

from caseexec import errors, ports, probes
from caseexec.deadline import Deadline
from caseexec.output import OutputLog
from caseexec.probes import NotReady, all_of, any_of, as_probe, pidfile
from caseexec.probes import http as http_module
from caseexec.probes import tcp as tcp_module
from caseexec.probes.pidfile import signature
from tests.helpers.leaks import NothingRemains, quickly, soon
from tests.helpers.programs import ACCEPTS_BUT_NEVER_ANSWERS, HTTP_SERVER, TCP_SERVER, UNIX_SERVER, python


class FakeTarget:
    """What a probe may know of a service."""

    listener = "ours"

    def __init__(self, logs=(), stranger=None, outcome=(0, ""), timeout=10.0) -> None:
        self.logs, self._stranger, self.outcome = list(logs), stranger, outcome
        self.deadline = Deadline(timeout)
        self.asked: list[object] = []

    def stranger(self, listeners):
        self.asked.append(listeners)
        return self._stranger

    def is_stranger(self, pid):
        self.asked.append(pid)
        return self._stranger is not None

    def run(self, command, shell):
        self.asked.append((command, shell))
        return self.outcome

    def _facts(self):
        return errors.Facts(who="it")

    @property
    def executor(self):
        return self


STRANGER = errors.Owner(pid=7, command="other")


class ProbeCase(NothingRemains):
    def serve(self, source: str, *arguments: object, ready=None) -> subprocess.Popen:
        process = subprocess.Popen(python(source, *arguments), stdout=subprocess.PIPE, start_new_session=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if ready is not None:
            self.assertTrue(soon(ready))
        return process

    def serve_on_port(self, source: str, *arguments: object) -> tuple[int, subprocess.Popen]:
        port = self.lease()
        return port, self.serve(source, port, *arguments, ready=lambda: ports.listeners("127.0.0.1", port))

    def full(self) -> int:
        """A port on which a connection is neither accepted nor refused."""
        server = socket.socket()
        self.addCleanup(server.close)
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            client = socket.socket()
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        return server.getsockname()[1]

    def assert_ends_soon(self, probe: probes.Probe) -> None:
        """A check ends when another thread has ended its time, and costs little until then."""
        target, turns, ended = FakeTarget(timeout=60), [], []
        target.deadline.watchers.append(lambda: turns.append(time.monotonic()))

        def expire() -> None:
            self.assertTrue(soon(lambda: turns and turns[-1] - turns[0] > 0.3))
            target.deadline.expire()
            ended.append(time.monotonic())

        other = threading.Thread(target=expire)
        used = time.thread_time()
        other.start()
        self.assertEqual(self.refusal(probe, target), "no answer in time")
        now, used = time.monotonic(), time.thread_time() - used
        other.join()
        self.assertLess(now - ended[0], 5)
        self.assertLess(used, 0.2, "a busy loop")

    def refusal(self, probe: probes.Probe, target=None) -> str:
        with self.assertRaises(NotReady) as caught:
            probe.check(target or FakeTarget())
        return str(caught.exception)


class TCPProbeTests(ProbeCase):
    def test_it_is_ready_when_somebody_accepts(self) -> None:
        port, _ = self.serve_on_port(TCP_SERVER)
        target = FakeTarget()
        probes.TCPProbe("127.0.0.1", port).check(target)
        self.assertEqual([found.port for found in target.asked[0]], [port])

    def test_nobody_there_is_a_refusal_in_plain_words(self) -> None:
        self.assertEqual(self.refusal(probes.TCPProbe("127.0.0.1", self.lease())), "connection refused")

    def test_a_name_that_cannot_be_resolved_is_a_refusal(self) -> None:
        self.assertIn("known", self.refusal(probes.TCPProbe("no-such-host.invalid", 80)))

    def test_a_connection_to_itself_is_a_refusal(self) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.connect(sock.getsockname())
            with mock.patch.object(tcp_module, "connected", return_value=sock):
                self.assertIn("to itself", self.refusal(probes.TCPProbe("127.0.0.1", sock.getsockname()[1])))

    def test_the_next_address_of_a_host_is_tried(self) -> None:
        port, _ = self.serve_on_port(TCP_SERVER)
        kind = socket.SOCK_STREAM
        nobody = ports.free_port()
        self.addCleanup(ports.release, nobody)
        dead = (socket.AF_INET, kind, 0, "", ("127.0.0.1", nobody))
        unknown = (999, kind, 0, "", ("127.0.0.1", port))
        good = (socket.AF_INET, kind, 0, "", ("127.0.0.1", port))
        for found, refusal in (
            ([dead, good], ""), ([unknown, good], ""), ([good, dead], ""), ([unknown, dead], "connection refused"),
            ([dead, unknown], "address family not supported by protocol"), ([], "the host has no address"),
        ):  # fmt: skip
            with self.subTest(found), mock.patch.object(tcp_module.socket, "getaddrinfo", return_value=found):
                if refusal:
                    self.assertEqual(self.refusal(probes.TCPProbe("h", port)), refusal)
                else:
                    probes.TCPProbe("h", port).check(FakeTarget())

    def test_one_whose_queue_is_full_is_given_up_in_time(self) -> None:
        with quickly(self, 5), mock.patch.object(tcp_module, "CONNECT_TIMEOUT", 0.1):
            self.assertEqual(self.refusal(probes.TCPProbe("127.0.0.1", self.full())), "no answer in time")
        with quickly(self, 5), mock.patch.object(tcp_module, "CONNECT_TIMEOUT", 60):
            target = FakeTarget(timeout=0.1)
            self.assertEqual(self.refusal(probes.TCPProbe("127.0.0.1", self.full()), target), "no answer in time")

    def test_it_ends_soon_after_its_time_was_ended(self) -> None:
        with mock.patch.object(tcp_module, "CONNECT_TIMEOUT", 60):
            self.assert_ends_soon(probes.TCPProbe("127.0.0.1", self.full()))

    def test_a_stranger_ends_the_wait(self) -> None:
        port, _ = self.serve_on_port(TCP_SERVER)
        with self.assertRaisesRegex(errors.AlreadyRunning, rf"port 127\.0\.0\.1:{port} is held by pid 7 \(other\)"):
            probes.TCPProbe("127.0.0.1", port).check(FakeTarget(stranger=STRANGER))

    def test_where_any_listener_will_do_nobody_is_looked_up(self) -> None:
        port, _ = self.serve_on_port(TCP_SERVER)
        target = FakeTarget(stranger=STRANGER)
        target.listener = "any"
        probes.TCPProbe("127.0.0.1", port).check(target)
        self.assertEqual(target.asked, [])

    def test_the_occupant_is_named(self) -> None:
        port, process = self.serve_on_port(TCP_SERVER)
        self.assertEqual(probes.TCPProbe("127.0.0.1", port).occupant().pid, process.pid)
        self.assertIsNone(probes.TCPProbe("127.0.0.1", self.lease()).occupant())

    def test_who_has_a_port_that_our_service_could_not_get(self) -> None:
        port, process = self.serve_on_port(TCP_SERVER)
        self.assertEqual(probes.TCPProbe("127.0.0.1", port).thief().pid, process.pid)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.assertEqual(probes.TCPProbe(*sock.getsockname()).thief(), errors.Owner())
        self.assertIsNone(probes.TCPProbe("127.0.0.1", self.lease()).thief())

    def test_an_occupant_that_cannot_be_seen_is_one_all_the_same(self) -> None:
        port, _ = self.serve_on_port(TCP_SERVER)
        with mock.patch.object(tcp_module, "listeners", return_value=[]):
            self.assertEqual(probes.TCPProbe("127.0.0.1", port).occupant(), errors.Owner())

    def test_it_says_what_it_waits_for(self) -> None:
        probe = probes.TCPProbe("127.0.0.1", 80)
        self.assertEqual((str(probe), probe.place), ("a TCP connection to 127.0.0.1:80", "port 127.0.0.1:80"))


class HTTPProbeTests(ProbeCase):
    def request_of(self, process: subprocess.Popen) -> list[str]:
        lines = []
        while (line := process.stdout.readline().decode().strip()) or not lines:
            lines.append(line)
        return lines

    def test_it_is_ready_when_the_status_is_right(self) -> None:
        port, process = self.serve_on_port(HTTP_SERVER, 204)
        probes.HTTPProbe(f"http://127.0.0.1:{port}/x?a=b&c=d#part").check(FakeTarget())
        self.assertEqual(self.request_of(process)[0], "HEAD /x?a=b&c=d HTTP/1.1")

    def test_method_headers_and_payload_are_sent(self) -> None:
        port, process = self.serve_on_port(HTTP_SERVER)
        url = f"http://127.0.0.1:{port}"
        probes.HTTPProbe(url, method="POST", headers={"X-Y": "z"}, payload={"a": "1"}).check(FakeTarget())
        request = self.request_of(process)
        self.assertEqual(request[0], "POST / HTTP/1.1")
        self.assertIn("X-Y: z", request)
        self.assertIn("Content-Length: 3", request)
        self.assertIn("Content-Type: application/x-www-form-urlencoded", request)

    def test_another_status_is_a_refusal(self) -> None:
        port, _ = self.serve_on_port(HTTP_SERVER, 503)
        self.assertEqual(self.refusal(probes.HTTPProbe(f"http://127.0.0.1:{port}")), "HTTP status 503 As You Like")

    def test_a_status_is_a_number_or_a_pattern(self) -> None:
        port, _ = self.serve_on_port(HTTP_SERVER, 404)
        for status in (404, "404", "4..", "(200|404)", r"^4\d\d$"):
            probes.HTTPProbe(f"http://127.0.0.1:{port}", status).check(FakeTarget())

    def test_a_server_that_never_answers_is_given_up_within_the_remaining_time(self) -> None:
        port, _ = self.serve_on_port(ACCEPTS_BUT_NEVER_ANSWERS)
        probe = probes.HTTPProbe(f"http://127.0.0.1:{port}")
        self.assertEqual(self.refusal(probe, FakeTarget(timeout=0.1)), "no answer in time")
        limited = probes.HTTPProbe(f"http://127.0.0.1:{port}", request_timeout=0.1)
        self.assertEqual(self.refusal(limited), "no answer in time")

    def test_it_ends_soon_after_its_time_was_ended(self) -> None:
        port, _ = self.serve_on_port(ACCEPTS_BUT_NEVER_ANSWERS)
        for url in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{self.full()}"):
            with self.subTest(url), mock.patch.object(http_module, "_REQUEST_TIMEOUT", 60):
                self.assert_ends_soon(probes.HTTPProbe(url))

    def test_a_request_that_its_server_does_not_read_ends_so_too(self) -> None:
        port, _ = self.serve_on_port(ACCEPTS_BUT_NEVER_ANSWERS)
        with mock.patch.object(http_module, "_REQUEST_TIMEOUT", 60):
            self.assert_ends_soon(probes.HTTPProbe(f"http://127.0.0.1:{port}", headers={"X": "x" * 10_000_000}))

    def test_a_request_may_be_given_more_time_than_the_default(self) -> None:
        program = HTTP_SERVER.replace(
            "        if request:", "        import time; time.sleep(0.3)\n        if request:"
        )
        port, _ = self.serve_on_port(program)
        with mock.patch.object(http_module, "_REQUEST_TIMEOUT", 0.1):
            url = f"http://127.0.0.1:{port}"
            self.assertEqual(self.refusal(probes.HTTPProbe(url)), "no answer in time")
            probes.HTTPProbe(url, request_timeout=10).check(FakeTarget())

    def test_when_the_time_is_over_before_it_connects_it_says_so(self) -> None:
        port, _ = self.serve_on_port(ACCEPTS_BUT_NEVER_ANSWERS)
        with mock.patch.object(Deadline, "remaining", return_value=0.0):
            self.assertEqual(self.refusal(probes.HTTPProbe(f"http://127.0.0.1:{port}")), "no answer in time")

    def test_a_server_that_trickles_is_given_up_within_the_remaining_time(self) -> None:
        program = """
            import socket, sys, time
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(('127.0.0.1', int(sys.argv[1])))
            server.listen()
            connection = server.accept()[0]
            while True:
                connection.sendall(sys.argv[2].encode().decode('unicode_escape').encode())
                time.sleep(0.05)
        """
        for piece in ("H", "HTTP/1.1 100 Continue\\r\\n\\r\\n"):
            port, _ = self.serve_on_port(program, piece)
            with self.subTest(piece), quickly(self, 5):
                self.assertIn(
                    "time", self.refusal(probes.HTTPProbe(f"http://127.0.0.1:{port}"), FakeTarget(timeout=0.3))
                )

    def test_an_interim_answer_is_passed_over(self) -> None:
        port, _ = self.serve_on_port(HTTP_SERVER, "100 Continue\r\n\r\nHTTP/1.1 204")
        probes.HTTPProbe(f"http://127.0.0.1:{port}", 204).check(FakeTarget())

    def test_garbage_is_shown_in_short(self) -> None:
        program = HTTP_SERVER.replace("connection.sendall(f", "connection.sendall(b'x' * 100_000 + f")
        port, _ = self.serve_on_port(program)
        refusal = self.refusal(probes.HTTPProbe(f"http://127.0.0.1:{port}"))
        self.assertIn("it does not speak HTTP: b'xxx", refusal)
        self.assertLess(len(refusal), 200)

    def test_a_server_that_speaks_something_else_is_a_refusal(self) -> None:
        port, _ = self.serve_on_port(TCP_SERVER)
        self.assertRegex(self.refusal(probes.HTTPProbe(f"http://127.0.0.1:{port}")), "(?i)closed|reset")

    def test_a_stranger_ends_the_wait_whatever_it_answers(self) -> None:
        port, _ = self.serve_on_port(HTTP_SERVER, 404)
        with self.assertRaises(errors.AlreadyRunning):
            probes.HTTPProbe(f"http://127.0.0.1:{port}").check(FakeTarget(stranger=STRANGER))

    def test_the_ports_of_the_schemes_are_known(self) -> None:
        self.assertEqual(probes.HTTPProbe("http://h/").place, "port h:80")
        self.assertEqual(probes.HTTPProbe("https://h/").place, "port h:443")
        self.assertEqual(probes.HTTPProbe("https://[::1]:8443/").place, "port ::1:8443")

    def test_it_says_what_it_waits_for(self) -> None:
        self.assertEqual(str(probes.HTTPProbe("http://h/x")), "HEAD http://h/x to answer with status any 2xx")
        self.assertEqual(str(probes.HTTPProbe("http://h/x", 404)), "HEAD http://h/x to answer with status 404")


class OutputProbeTests(ProbeCase):
    def test_it_is_ready_when_one_of_the_streams_has_it(self) -> None:
        logs = [OutputLog().open(), OutputLog().open()]
        for log in logs:
            self.addCleanup(log.remove)
        probe = probes.OutputProbe("^ready$")
        os.write(logs[0].writer, b"not ready\n")
        self.assertEqual(self.refusal(probe, FakeTarget(logs)), "not found in the 10 bytes that it wrote")
        os.write(logs[1].writer, b"so:\nready\n")
        probe.check(FakeTarget(logs))

    def test_a_compiled_pattern_keeps_its_flags(self) -> None:
        log = OutputLog().open()
        self.addCleanup(log.remove)
        os.write(log.writer, b"READY")
        probes.OutputProbe(re.compile("ready", re.IGNORECASE)).check(FakeTarget([log]))

    def test_it_says_what_it_waits_for(self) -> None:
        self.assertEqual(str(probes.OutputProbe("ready")), "output that matches 'ready'")


class UnixSocketProbeTests(ProbeCase):
    def setUp(self) -> None:
        super().setUp()
        self.socket = self.path("s.sock")
        self.probe = probes.UnixSocketProbe(self.socket)

    def test_it_is_ready_when_somebody_accepts(self) -> None:
        process = self.serve(UNIX_SERVER, self.socket, ready=lambda: self.probe.occupant())
        target = FakeTarget()
        self.probe.check(target)
        self.assertEqual(target.asked, [process.pid])
        self.assertEqual(self.probe.occupant().pid, process.pid)

    def test_no_socket_and_a_dead_one_are_refusals(self) -> None:
        self.assertEqual(self.refusal(self.probe), "no such file or directory")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(self.socket)
        self.assertEqual(self.refusal(self.probe), "connection refused")
        self.assertIsNone(self.probe.occupant())

    def test_a_stranger_ends_the_wait(self) -> None:
        self.serve(UNIX_SERVER, self.socket, ready=lambda: self.probe.occupant())
        with self.assertRaisesRegex(errors.AlreadyRunning, "Unix socket .*s.sock is held by pid"):
            self.probe.check(FakeTarget(stranger=STRANGER))

    def test_a_path_that_is_too_long_is_told_at_once(self) -> None:
        with self.assertRaisesRegex(errors.DeclarationError, "has 205 bytes, and the path of a Unix socket at most"):
            probes.UnixSocketProbe("/tmp/" + "x" * 200).occupant()


class PidProbeTests(ProbeCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.path("s.pid")
        self.probe = probes.PidProbe(self.file)

    def write(self, text: str, age: float = 0) -> None:
        with open(self.file, "w") as file:
            file.write(text)
        stamp = os.stat(self.file).st_mtime - age
        os.utime(self.file, (stamp, stamp))

    def test_it_is_ready_when_the_file_is_there(self) -> None:
        self.assertEqual(self.refusal(self.probe), "there is no such file")
        self.write(f"{os.getpid()}\n/some/path\n")
        self.probe.check(FakeTarget())

    def test_a_file_from_before_the_start_counts_once_it_has_changed(self) -> None:
        self.write("1", age=10)
        probe = probes.PidProbe(self.file, signature(self.file))
        self.assertEqual(self.refusal(probe), "the file is an old one, from before the start")
        self.write("2")
        probe.check(FakeTarget())

    def test_any_other_file_will_do_as_well(self) -> None:
        self.write("4194303 is no process")
        self.probe.check(FakeTarget())

    def test_an_empty_file_is_ready_once_it_stays_empty(self) -> None:
        self.write("")
        with mock.patch.object(pidfile, "_GRACE", 60):
            self.assertEqual(self.refusal(self.probe), "the file is still empty")
        self.write("", age=1)
        self.probe.check(FakeTarget())

    def test_the_occupant_is_the_process_that_it_names(self) -> None:
        self.assertIsNone(self.probe.occupant())
        self.write(str(os.getpid()))
        self.assertEqual(self.probe.occupant().pid, os.getpid())
        self.assertEqual(self.probe.thief().pid, os.getpid())

    def test_a_pipe_is_no_pid_file_and_nobody_waits_for_it(self) -> None:
        os.mkfifo(self.file)
        self.assertIsNone(self.probe.occupant())
        self.assertEqual(self.refusal(self.probe), "there is no such file")

    def test_a_stale_file_has_no_occupant_and_an_empty_one_an_unknown(self) -> None:
        process = subprocess.Popen(["true"])
        process.wait()
        self.write(str(process.pid))
        self.assertIsNone(self.probe.occupant())
        self.write("")
        self.assertEqual((self.probe.occupant(), self.probe.thief()), (errors.Owner(), None))


class CommandProbeTests(ProbeCase):
    def test_it_is_ready_when_the_command_succeeds(self) -> None:
        target = FakeTarget()
        probes.CommandProbe(["pg_isready", "-q"]).check(target)
        self.assertEqual(target.asked, [(["pg_isready", "-q"], False)])

    def test_a_failure_is_a_refusal_with_its_last_line(self) -> None:
        target = FakeTarget(outcome=(2, "hint\nno response\n"))
        self.assertEqual(
            self.refusal(probes.CommandProbe("check"), target), "the check command exited with status 2: no response"
        )
        self.assertIn("did not end", self.refusal(probes.CommandProbe("check"), FakeTarget(outcome=(None, ""))))

    def test_it_says_what_it_waits_for(self) -> None:
        self.assertEqual(str(probes.CommandProbe(["pg_isready", "-q"])), "'pg_isready -q' to succeed")


class CombinedTests(ProbeCase):
    def ready(self, _: object) -> bool:
        return True

    def loading(self, _: object) -> bool:
        raise ConnectionError("still loading")

    def test_a_function_is_asked_with_the_target(self) -> None:
        seen = []
        as_probe(lambda target: seen.append(target) or True).check(target := FakeTarget())
        self.assertEqual(seen, [target])

    def test_something_false_or_an_error_of_a_client_is_a_refusal(self) -> None:
        self.assertEqual(self.refusal(as_probe(lambda _: 0)), "it returned 0")
        self.assertEqual(self.refusal(as_probe(self.loading)), "ConnectionError: still loading")

    def test_a_mistake_in_the_function_ends_the_wait(self) -> None:
        with self.assertRaises(NameError):
            as_probe(lambda _: undefined_name).check(FakeTarget())
        with self.assertRaises(TypeError):
            as_probe(lambda: True).check(FakeTarget())

    def test_all_must_hold_and_the_first_that_does_not_answers(self) -> None:
        probe = all_of(self.ready, self.loading)
        self.assertIn("still loading", self.refusal(probe))
        all_of(self.ready, self.ready).check(FakeTarget())
        self.assertIn(" and ", str(probe))

    def test_any_may_hold_and_all_refusals_are_told(self) -> None:
        any_of(self.loading, self.ready).check(FakeTarget())
        self.assertEqual(self.refusal(any_of(self.loading, self.loading)).count("still loading"), 2)
        self.assertIn(" or ", str(any_of(self.ready, self.loading)))
