"""Nine classes whose tests pass."""

import os

from caseexec import (
    CommandServiceMixin,
    HTTPServiceMixin,
    OneShot,
    PidServiceMixin,
    ServicesMixin,
    TCPService,
    TCPServiceMixin,
    UnixSocketServiceMixin,
)
from tests.helpers.faulty import note, service
from tests.helpers.programs import HTTP_SERVER, UNIX_SERVER, python
from tests.helpers.thirty import SLEEPS, TOLD, Noted, Sleeps


class TCPTests(TCPServiceMixin, Noted):
    service_command = service(TOLD)

    def test_one(self) -> None:
        self.passes(self.service.port)

    def test_two(self) -> None:
        self.passes(self.service.port)


class HTTPTests(HTTPServiceMixin, Noted):
    service_command = [part.replace("{", "{{").replace("}", "}}") for part in python(HTTP_SERVER)] + ["{port}"]

    def test_it(self) -> None:
        self.passes()


class OutputTests(Sleeps):
    def test_it(self) -> None:
        self.passes()


class UnixSocketTests(UnixSocketServiceMixin, Noted):
    service_command = [*python(UNIX_SERVER), "{tmp}/socket"]
    service_socket = "{tmp}/socket"

    def test_it(self) -> None:
        self.passes()


class PidTests(PidServiceMixin, Noted):
    service_command = "echo $$ >{tmp}/pid; exec sleep 300"
    service_shell = True
    service_pid_file = "{tmp}/pid"

    def test_it(self) -> None:
        self.passes()


class CommandTests(CommandServiceMixin, Noted):
    service_command = "sleep 300"
    service_check = "true"

    def test_it(self) -> None:
        self.passes()


class SeveralTests(ServicesMixin, Noted):
    files = OneShot("echo made >{tmp}/file", shell=True)
    sleeps = SLEEPS
    served = TCPService(service(TOLD), after=("files", "sleeps"))

    def test_it(self) -> None:
        self.passes(self.served.port)


class EachTestTests(ServicesMixin, Noted):
    own = SLEEPS.replace(scope="test")

    def setUp(self) -> None:
        super().setUp()
        self.assertTrue(self.own.running())

    def test_one(self) -> None:
        self.passes()

    def test_two(self) -> None:
        with self.own.stopped():
            self.assertFalse(self.own.running())
        self.passes()


class SubtestTests(ServicesMixin, Noted):
    session = TCPService(service(TOLD), scope="session")

    def test_it(self) -> None:
        note("session", f"{os.getpid()} {self.session.port}")
        for number in range(2):
            with self.subTest(number=number):
                self.assertTrue(self.session.running())
        self.passes(self.session.port)
