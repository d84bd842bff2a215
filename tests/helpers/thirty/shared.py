"""Four classes that share services."""

import os

from caseexec import OutputService, ServicesMixin, TCPService, TCPServiceMixin
from tests.helpers.faulty import note, service
from tests.helpers.thirty import TOLD, Noted

IN_THE_MODULE = TCPService(service(TOLD), scope="module")
IN_THE_RUN = TCPService(service(TOLD), scope="session")


class ModuleTests(ServicesMixin, Noted):
    module = IN_THE_MODULE

    def test_one(self) -> None:
        note("module", f"{os.getpid()} {self.module.port}")
        self.passes(self.module.port)

    def test_two(self) -> None:
        note("module", f"{os.getpid()} {self.module.port}")
        self.passes(self.module.port)


class ModuleAgainTests(ServicesMixin, Noted):
    module = IN_THE_MODULE

    def test_it(self) -> None:
        note("module", f"{os.getpid()} {self.module.port}")
        self.passes(self.module.port)


class SessionTests(TCPServiceMixin, Noted):
    service_command = service(TOLD)
    service_scope = "session"

    def test_it(self) -> None:
        note("session", f"{os.getpid()} {self.service.port}")
        self.passes(self.service.port)


class EachTests(ServicesMixin, Noted):
    session = IN_THE_RUN
    module = IN_THE_MODULE
    own = OutputService("echo {session.port} {module.port}; exec sleep 300", shell=True, banner=r"^\d+ \d+$")

    def test_it(self) -> None:
        note("session", f"{os.getpid()} {self.session.port}")
        note("module", f"{os.getpid()} {self.module.port}")
        self.assertEqual(self.own.tail().split(), [str(self.session.port), str(self.module.port)])
        self.passes(self.session.port, self.module.port)
