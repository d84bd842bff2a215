"""Five classes that cannot be set up."""

from caseexec import OutputServiceMixin, ServicesMixin, TCPService
from tests.helpers.faulty import service
from tests.helpers.programs import EXIT_3, SLEEP
from tests.helpers.thirty import SLEEPS, TOLD, MustNotRun, Noted, Sleeps, tell


class SetUpClassTests(MustNotRun, ServicesMixin, Noted):
    shop = TCPService(service(TOLD))

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        tell(cls.shop.port, "of the set-up of a class")
        raise KeyError("no")


class NeverReadyTests(MustNotRun, ServicesMixin, Noted):
    fine = SLEEPS
    never = TCPService(SLEEP, env={"PORT": "{port}"}, start_timeout=0.3)


class ExitsTests(MustNotRun, OutputServiceMixin, Noted):
    service_command = EXIT_3
    service_banner = "never"


class NoProgramTests(MustNotRun, OutputServiceMixin, Noted):
    service_command = "no-such-program-anywhere"
    service_banner = "never"


class WithoutSuperTests(MustNotRun, Sleeps):
    @classmethod
    def setUpClass(cls) -> None:
        pass
