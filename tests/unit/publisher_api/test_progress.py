"""What is told of a waiting job: its position, and how long it may wait."""

from __future__ import annotations

from publisher_api.jobs.progress import RATE_SECONDS, Estimate, Rate, estimate
from tidegate_common.bus.jobs.queue_info import QueueState

STATE = QueueState(waiting=(3, 5, 0, 9), given=(0, 0, 0, 0), reached=(0, 0, 0, 0))


def rate(*seen: tuple[float, int]) -> Rate:
    found = Rate()
    for now, given in seen:
        found.note(now, given)
    return found


def test_all_that_wait_on_lower_levels_come_first() -> None:
    taken = rate((0, 10), (4, 18))
    assert estimate(0, 2, STATE, taken) == Estimate(3, 1.5)
    assert estimate(1, 0, STATE, taken) == Estimate(4, 2.0)
    assert estimate(3, 8, STATE, taken) == Estimate(17, 8.5)


def test_while_no_job_was_taken_nothing_is_said_of_the_time() -> None:
    assert estimate(0, 0, STATE, rate((0, 10))) == Estimate(1, None)
    assert estimate(0, 0, STATE, rate((0, 10), (5, 10))) == Estimate(1, None)


def test_the_rate_is_that_of_the_last_minute() -> None:
    assert rate((0, 0), (10, 1000), (RATE_SECONDS + 10, 1050)).seconds_for(100) == 2 * RATE_SECONDS


def test_a_queue_that_was_made_anew_has_no_rate_of_before() -> None:
    assert rate((0, 100), (1, 110), (2, 0)).seconds_for(1) is None
    assert rate((0, 100), (1, 110), (2, 0), (4, 4)).seconds_for(1) == 0.5
