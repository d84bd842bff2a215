"""Four classes whose tests are skipped."""

import unittest

from tests.helpers.thirty import MustNotRun, Sleeps


@unittest.skip("the class")
class ClassTests(MustNotRun, Sleeps):
    pass


class MethodsTests(MustNotRun, Sleeps):
    test_one = unittest.skip("the method")(MustNotRun.test_one)

    def test_two(self) -> None:
        self.skipTest("the test")

    def test_that_passes(self) -> None:
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
