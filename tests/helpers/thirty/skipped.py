"""Four classes whose tests are skipped."""

import os
import unittest

from tests.helpers.faulty import answers, lines, noted
from tests.helpers.thirty import MustNotRun, Sleeps


@unittest.skip("the class")
class ClassTests(MustNotRun, Sleeps):
    pass


class MethodsTests(MustNotRun, Sleeps):
    test_one = unittest.skip("the method")(MustNotRun.test_one)

    def test_two(self) -> None:
        self.skipTest("the test")

    def test_that_passes(self) -> None:
        # What the classes of another module have shared in this process is over.
        shared = [line.split() for line in lines("module")] if noted("module") else []
        self.assertFalse([port for pid, port in shared if int(pid) == os.getpid() and answers(int(port))])
        self.passes()


class SetUpClassTests(MustNotRun, Sleeps):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        raise unittest.SkipTest("the set-up")


class NoProgramTests(MustNotRun, Sleeps):
    service_command = "no-such-program-anywhere"
    service_shell = False
    service_if_missing = "skip"
