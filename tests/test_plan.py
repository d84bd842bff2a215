import signal
import unittest

from caseexec.plan import StopPlan


class StopPlanTests(unittest.TestCase):
    def test_its_repr_does_not_show_the_environment(self) -> None:
        self.assertNotIn("secret", repr(StopPlan(environment={"PASSWORD": "secret"})))

    def test_by_default_it_terminates_and_then_kills(self) -> None:
        self.assertEqual((StopPlan().stop_signal, StopPlan().kill_signal), (signal.SIGTERM, signal.SIGKILL))

    def test_it_cannot_be_changed(self) -> None:
        with self.assertRaises(AttributeError):
            StopPlan().timeout = 1
