"""Five classes with tests that fail."""

import os
import signal
import unittest

from caseexec import ServicesMixin, TCPService, TCPServiceMixin
from tests.helpers.faulty import service
from tests.helpers.leaks import soon
from tests.helpers.thirty import TOLD, Noted, Sleeps, tell

SHOP = TCPService(service(TOLD))


class FailingTests(ServicesMixin, Noted):
    shop = SHOP

    def test_error(self) -> None:
        tell(self.shop.port, "of an error")
        raise KeyError("no")

    def test_failure(self) -> None:
        tell(self.shop.port, "of a failure")
        self.fail("no")

    def test_subtest(self) -> None:
        with self.subTest("one"):
            tell(self.shop.port, "of a subtest")
            self.fail("no")

    def test_that_passes(self) -> None:
        tell(self.shop.port, "of nothing")
        self.passes(self.shop.port)


class SetUpTests(TCPServiceMixin, Noted):
    service_command = service(TOLD)

    def setUp(self) -> None:
        super().setUp()
        tell(self.service.port, "of a set-up")
        raise KeyError("no")

    def test_it(self) -> None:
        raise AssertionError("must not run")


class ExpectedTests(Sleeps):
    @unittest.expectedFailure
    def test_failure(self) -> None:
        self.fail("no")

    @unittest.expectedFailure
    def test_success(self) -> None:
        pass


class DyingTests(Sleeps):
    """Its service dies in its only test, so that it is the tear-down that tells of it."""

    def test_it(self) -> None:
        os.kill(self.service.pid, signal.SIGKILL)
        self.assertTrue(soon(self.service.has_died))
        self.passes()


class TearDownClassTests(Sleeps):
    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        raise KeyError("no")

    def test_it(self) -> None:
        self.passes()
