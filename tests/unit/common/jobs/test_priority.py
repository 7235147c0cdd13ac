"""The levels of the queue and their turns, and how jobs of one owner are counted that come at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.support.waiting import until
from tidegate_common.bus.jobs.priority import LEVELS, JobsInQueue, OwnerCounts, level_of, turn
from tidegate_common.bus.streams.patience import WAITER
from tidegate_common.errors import BrokerUnavailable


def test_the_level_goes_by_how_many_of_the_owner_are_before() -> None:
    assert [level_of(before) for before in (0, 1, 2, 7, 8, 31, 32, 10_000)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_of_24_jobs_each_level_has_its_turns_and_three_of_four_begin_at_the_lowest() -> None:
    turns = [turn(number) for number in range(24)]
    assert Counter(each[0] for each in turns) == {0: 18, 1: 3, 2: 2, 3: 1}
    assert all(sorted(each) == list(LEVELS) for each in turns), "whoever has a turn and finds nothing looks elsewhere"
    assert all(each[-1] == 0 for each in turns[3::4]), "a turn of the upper levels goes to any of them first"


class Queue:
    """What the queue holds of each owner. It answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[JobsInQueue]]] = []

    async def ask(self, owner: str) -> JobsInQueue:
        self.asked.append((owner, asyncio.get_running_loop().create_future()))
        return await self.asked[-1][1]

    async def answer(self, number: int, of_owner: int, last: int) -> None:
        """As soon as it was asked that question, from 0 on."""
        await until(lambda: len(self.asked) > number, "the queue is asked")
        self.asked[number][1].set_result(JobsInQueue(of_owner, of_owner, last))


async def test_entries_that_come_at_once_share_a_question_and_count_those_before_them() -> None:
    """Each of a burst counted all the others: 33 at once stood on the last level, and three had no first two."""
    queue = Queue()
    counts = OwnerCounts(queue.ask)
    with ExitStack() as stack:
        entries = [stack.enter_context(counts.entry("ann")) for _ in range(3)]
        other = stack.enter_context(counts.entry("bob"))
        waiting = [asyncio.create_task(each.before()) for each in (*entries, other)]
        await queue.answer(1, 0, 40)
        await queue.answer(0, 5, 40)
        assert [(await each).of_owner for each in waiting] == [5, 6, 7, 0]
        assert [owner for owner, _ in queue.asked] == ["ann", "bob"]


async def test_an_entry_that_the_queue_has_not_confirmed_counts_beside_what_the_queue_holds() -> None:
    queue = Queue()
    counts = OwnerCounts(queue.ask)
    with counts.entry("ann") as stored, counts.entry("ann") as late, counts.entry("ann") as under_way:
        await queue.answer(0, 0, 0)
        assert [(await each.before()).of_owner for each in (stored, late, under_way)] == [0, 1, 2]
        stored.sequence = 7
        with counts.entry("ann") as entry:
            asked = asyncio.create_task(entry.before())
            await until(lambda: len(queue.asked) == 2, "the queue is asked again")
            late.sequence = 8  # confirmed while the queue was being asked, which had answered before
            await queue.answer(1, 1, 7)
            assert (await asked).of_owner == 3, "one that the queue holds, one stored after its answer, one under way"


async def test_an_entry_that_the_queue_holds_and_has_not_confirmed_yet_counts_once() -> None:
    """The answer that counted it came before its confirmation: it counted as on its way too, and the next came late."""
    queue = Queue()
    counts = OwnerCounts(queue.ask)
    with counts.entry("ann") as stored:
        await queue.answer(0, 0, 0)
        await stored.before()
        stored.sending = asyncio.get_running_loop().create_future()
        with counts.entry("ann") as entry:
            asked = asyncio.create_task(entry.before())
            await queue.answer(1, 1, 7)
            done, _ = await asyncio.wait([asked], timeout=0)
            assert not done, "nobody knows yet whether the answer has it"
            stored.sending.set_result(7)
            assert (await asked).of_owner == 1


async def test_an_entry_that_does_not_come_into_the_queue_counts_no_more() -> None:
    queue = Queue()
    counts = OwnerCounts(queue.ask)
    with counts.entry("ann") as kept:
        with counts.entry("ann"):
            await queue.answer(0, 0, 0)
            await kept.before()
        with counts.entry("ann") as entry:
            asked = asyncio.create_task(entry.before())
            await queue.answer(1, 0, 0)
            assert (await asked).of_owner == 1
    with counts.entry("ann"):
        await queue.answer(2, 0, 0)  # a question of its own: nothing is kept of an owner of whom nothing is on its way


async def test_the_answer_comes_to_those_who_stay_when_the_first_of_them_leaves() -> None:
    """What is asked for several goes on under nobody's account: a wait for a leader ended with the first caller."""
    queue = Queue()
    callers: list[object] = []

    async def ask(owner: str) -> JobsInQueue:
        callers.append(WAITER.get())
        return await queue.ask(owner)

    class Gone:
        size = 0

        def gone(self) -> asyncio.Future[None]:
            raise AssertionError("nobody waits on its account")

    counts = OwnerCounts(ask)
    token = WAITER.set(Gone())
    try:
        with counts.entry("ann") as first, counts.entry("ann") as second:
            leaving, staying = asyncio.create_task(first.before()), asyncio.create_task(second.before())
            await until(lambda: queue.asked, "the queue is asked")
            leaving.cancel()
            await asyncio.wait([leaving])
            await queue.answer(0, 0, 0)
            assert (await staying).of_owner == 1
    finally:
        WAITER.reset(token)
    assert callers == [None]


async def test_an_error_is_for_all_that_wait_and_the_next_entry_asks_anew() -> None:
    queue = Queue()
    counts = OwnerCounts(queue.ask)
    with counts.entry("ann") as first, counts.entry("ann") as second:
        waiting = [asyncio.create_task(each.before()) for each in (first, second)]
        await until(lambda: queue.asked, "the queue is asked")
        queue.asked[0][1].set_exception(BrokerUnavailable("NATS is away"))
        for each in waiting:
            with pytest.raises(BrokerUnavailable):
                await each
        with counts.entry("ann") as third:
            asked = asyncio.create_task(third.before())
            await queue.answer(1, 0, 0)
            assert (await asked).of_owner == 2
