import itertools
import math
import os
import threading
import unittest
from unittest import mock

from caseexec.deadline import LONGEST, Deadline, scaled, timeout_scale
from caseexec.errors import DeclarationError
from tests.helpers.leaks import quickly


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


class DeadlineCase(unittest.TestCase):
    def setUp(self) -> None:
        self.time = FakeTime()

    def deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, _clock=self.time.clock)


class DeadlineTests(DeadlineCase):
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

    def test_expired_it_is_over(self) -> None:
        for timeout in (3, None):
            deadline = self.deadline(timeout)
            deadline.expire()
            self.assertEqual((deadline.remaining(), deadline.expired()), (0, True))
            self.assertEqual(len(list(deadline.turns(self.time.pause))), 1)

    def test_one_within_another_ends_with_whichever_is_first(self) -> None:
        outer = self.deadline(3)
        self.assertEqual((outer.within(2).remaining(), outer.within(9).remaining()), (2, 3))
        self.assertEqual(outer.within(None).remaining(), 3)
        self.assertEqual(self.deadline(None).within(None).remaining(), math.inf)
        self.time.now += 1
        inner = outer.within(1)
        self.assertEqual((inner.timeout, inner.elapsed(), inner.remaining()), (1, 0, 1))
        self.time.now += 1
        self.assertEqual((inner.expired(), outer.remaining()), (True, 1))

    def test_it_ends_when_the_other_is_expired_later_and_not_the_other_way_round(self) -> None:
        outer = self.deadline(3)
        inner, innermost = outer.within(2), outer.within(2).within(1)
        inner.expire()
        self.assertEqual((inner.expired(), outer.expired(), innermost.expired()), (True, False, False))
        outer.expire()
        self.assertEqual((innermost.expired(), innermost.at_most(5) < 0.01), (True, True))


class WaitTests(DeadlineCase):
    """What another thread does while somebody waits."""

    def long_pause(self, pause) -> list[float]:
        """A wait so long that its next pause is ten seconds; the length of each turn."""
        deadline = self.deadline(None)
        self.time.now += 1000
        self.made = deadline
        turns = deadline.turns(pause, longest=10)
        return [next(turns) - 1000, next(turns, math.inf) - 1000]

    def test_long_pauses_are_made_in_pieces(self) -> None:
        self.assertAlmostEqual(self.long_pause(self.time.pause)[1], 10)
        self.assertLessEqual(max(self.time.pauses), LONGEST)

    def test_it_ends_after_the_present_piece(self) -> None:
        def pause(seconds: float) -> None:
            self.time.pause(seconds)
            if len(self.time.pauses) == 3:
                self.made.expire()

        self.assertAlmostEqual(self.long_pause(pause)[1], 3 * LONGEST)

    def test_a_pause_that_comes_back_early_begins_the_next_turn(self) -> None:
        def pause(seconds: float) -> None:
            self.time.pause(seconds if len(self.time.pauses) < 2 else 0.01)

        self.assertAlmostEqual(self.long_pause(pause)[1], 2 * LONGEST + 0.01)

    def test_the_watchers_are_called_all_the_time_those_of_the_outer_one_too(self) -> None:
        for make in (lambda deadline: deadline, lambda deadline: deadline.within(None).within(None)):
            outer, calls = self.deadline(None), []
            outer.watchers.append(lambda: calls.append(self.time.now))
            inner = make(outer)
            self.time.now += 1000
            turns = inner.turns(self.time.pause, longest=10)
            next(turns)
            self.assertEqual(calls, [])
            next(turns)
            self.assertLessEqual(max(after - before for before, after in itertools.pairwise(calls)), LONGEST + 1e-6)
            self.assertAlmostEqual(calls[-1] - calls[0], 10 - LONGEST)

    def test_another_thread_ends_it(self) -> None:
        deadline, waits = Deadline(60), threading.Event()
        deadline.watchers.append(waits.set)

        def expire() -> None:
            waits.wait(30)
            deadline.expire()

        other = threading.Thread(target=expire)
        other.start()
        with quickly(self, 30):
            for _ in deadline.within(60).turns():
                pass
        other.join()


class ScaleTests(unittest.TestCase):
    def scale(self, given: str | None) -> float:
        with mock.patch.dict(os.environ):
            os.environ.pop("CASEEXEC_TIMEOUT_SCALE", None)
            if given is not None:
                os.environ["CASEEXEC_TIMEOUT_SCALE"] = given
            return timeout_scale()

    def test_it_is_a_number_from_zero_on_and_one_by_default(self) -> None:
        given = (None, "", "1", "3", "0.5", "1e2", " 2 ", "0", "-0")
        self.assertEqual(list(map(self.scale, given)), [1, 1, 1, 3, 0.5, 100, 2, 0, 0])

    def test_anything_else_is_an_error_that_names_the_variable_and_what_is_allowed(self) -> None:
        for given in ("three", "3x", " ", "-1", "-0.001", "nan", "inf", "-inf", "1e999", "0x3", "3,5"):
            with self.subTest(given), self.assertRaises(DeclarationError) as caught:
                self.scale(given)
            self.assertEqual(
                str(caught.exception),
                f"CASEEXEC_TIMEOUT_SCALE: {given!r} is nothing to multiply timeouts by: give a number such as 3 or 0.5, or 0 "
                "for no limit at all",
            )

    def test_timeouts_are_multiplied_and_zero_takes_their_limit(self) -> None:
        self.assertEqual([scaled(30, 3), scaled(30, 1), scaled(None, 3)], [90, 30, None])
        self.assertEqual([scaled(30, 0), scaled(0, 0), scaled(None, 0), scaled(0, 3)], [None, None, None, 0])
