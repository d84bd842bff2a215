import math
import unittest

from caseexec.deadline import Deadline


class FakeTime:
    """A clock that only moves when somebody pauses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class DeadlineTests(unittest.TestCase):
    def setUp(self) -> None:
        self.time = FakeTime()

    def deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, _clock=self.time.clock)

    def test_the_remaining_time_goes_down_to_zero_and_not_below(self) -> None:
        deadline = self.deadline(3)
        self.assertEqual(deadline.remaining(), 3)
        self.time.now += 2
        self.assertEqual((deadline.remaining(), deadline.elapsed(), deadline.expired()), (1, 2, False))
        self.time.now += 2
        self.assertEqual((deadline.remaining(), deadline.expired()), (0, True))

    def test_without_a_timeout_it_never_expires(self) -> None:
        deadline = self.deadline(None)
        self.time.now += 1e9
        self.assertEqual((deadline.remaining(), deadline.expired()), (math.inf, False))

    def test_a_blocking_call_gets_at_most_what_is_left_and_never_nothing(self) -> None:
        deadline = self.deadline(3)
        self.assertEqual(deadline.at_most(1), 1)
        self.assertEqual(deadline.at_most(5), 3)
        self.time.now += 4
        self.assertGreater(deadline.at_most(5), 0)

    def test_pauses_are_two_percent_of_the_time_waited_within_bounds(self) -> None:
        for elapsed in self.deadline(10).turns(self.time.pause):
            pause = self.time.pauses[-1] if self.time.pauses else 0.0005
            self.assertLessEqual(pause, max(0.0005, 0.02 * elapsed) + 1e-9)
        self.assertEqual(self.time.pauses[0], 0.0005)
        self.assertAlmostEqual(max(self.time.pauses), 0.05)

    def test_the_longest_pause_can_be_shorter(self) -> None:
        for _ in self.deadline(10).turns(self.time.pause, longest=0.01):
            pass
        self.assertEqual(max(self.time.pauses), 0.01)

    def test_the_last_turn_is_at_the_end_of_the_time(self) -> None:
        deadline = self.deadline(1)
        turns = list(deadline.turns(self.time.pause))
        self.assertEqual(turns[0], 0)
        self.assertAlmostEqual(turns[-1], 1)

    def test_even_without_time_there_is_one_turn(self) -> None:
        self.assertEqual(len(list(self.deadline(0).turns(self.time.pause))), 1)
