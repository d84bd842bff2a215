"""Three classes with asynchronous tests."""

import os
import unittest

from caseexec import ServicesMixin, TCPService
from tests.helpers.faulty import note, service
from tests.helpers.thirty import SLEEPS, TOLD, Noted, tell


class SharingTests(ServicesMixin, Noted, unittest.IsolatedAsyncioTestCase):
    session = TCPService(service(TOLD), scope="session")

    async def test_it(self) -> None:
        note("session", f"{os.getpid()} {self.session.port}")
        self.passes(self.session.port)


class StoppingTests(ServicesMixin, Noted, unittest.IsolatedAsyncioTestCase):
    sleeps = SLEEPS

    async def asyncSetUp(self) -> None:
        self.assertTrue(self.sleeps.running())

    async def test_one(self) -> None:
        async with self.sleeps.astopped():
            self.assertFalse(self.sleeps.running())
        self.passes()

    async def test_two(self) -> None:
        self.passes()


class FailingTests(ServicesMixin, Noted, unittest.IsolatedAsyncioTestCase):
    shop = TCPService(service(TOLD))

    async def test_it(self) -> None:
        tell(self.shop.port, "of an asynchronous failure")
        self.fail("no")
