"""What counts as written: the hub's own fan-out decides, a receipt only looks on."""

import asyncio

from gateway.feed.receipts import Receipts
from gateway.hub.endings import Ending
from tests.support.hub import World
from tests.support.waiting import until


class Place(World):
    """A hub on the running loop, and its receipts. `durable` and `volatile` go through these."""

    def __init__(self) -> None:
        super().__init__(schedule=asyncio.get_running_loop().call_soon)
        self.receipts = Receipts(self.hub)

    def durable(self, tail: str, sequence: int = 7, chunk: bytes | None = None) -> None:
        self.receipts.durable(b"r", self.wire.audiences[tail], sequence, chunk or b"%d;" % sequence)

    def volatile(self, tail: str, volatile_id: bytes = b"id", chunk: bytes | None = None) -> None:
        self.receipts.volatile(b"r", self.wire.audiences[tail], volatile_id, chunk or b"v;")

    def ask(self, tail: str = "topic.a") -> list[int]:
        """What the receipt says, once it does."""
        answers: list[int] = []
        self.receipts.ask(b"r", tail, answers.append)
        return answers

    async def count(self, tail: str = "topic.a") -> int:
        answers = self.ask(tail)
        await until(lambda: bool(answers), "the receipt")
        return answers[0]


async def test_nobody_is_answered_at_once() -> None:
    assert Place().ask() == [0]


async def test_each_connection_that_was_written_to_counts_once() -> None:
    place = Place()
    peers = [place.peer("topic.a"), place.peer("topic.a", "topic.*", overlapping=True), place.peer("topic.*")]
    for tail in ("topic.a", "topic.*"):
        place.durable(tail)
    assert await place.count() == 3
    assert [peer.writes for peer in peers] == [[b"7;"]] * 3


async def test_volatile_events_count_where_there_was_room() -> None:
    place = Place()
    place.peer("topic.a", "topic.*", overlapping=True)
    place.peer("topic.a").paused = True
    for tail in ("topic.a", "topic.*"):
        place.volatile(tail)
    assert await place.count() == 1


async def test_a_reader_that_is_too_slow_for_a_durable_event_was_not_written_to() -> None:
    place = Place()
    place.peer("topic.a")
    slow = place.peer("topic.a")
    slow.paused = True
    place.durable("topic.a")
    assert await place.count() == 1
    assert slow.ending is Ending.SLOW


async def test_who_is_joining_counts_when_live_and_only_where_the_event_came_after_it() -> None:
    place = Place()
    before, after, gone = (place.peer("topic.a", live=False) for _ in range(3))
    place.durable("topic.a")
    answers = place.ask()
    before.position = before.began = 6
    after.position = after.began = 7
    place.hub.release(before)
    place.hub.release(after)
    assert answers == []
    gone.lost()
    await until(lambda: answers == [1], "the receipt")
    assert (before.writes, after.writes) == ([b"7;"], [])


async def test_a_volatile_event_that_did_not_fit_the_hold_was_not_written() -> None:
    place = Place()
    fits, full = place.peer("topic.a", live=False), place.peer("topic.a", live=False)
    assert full.held is not None
    full.held.add(1, b"x" * 1000)
    place.volatile("topic.a")
    place.hub.release(fits)
    full.position = 1
    place.hub.release(full)
    assert await place.count() == 1


async def test_a_volatile_event_whose_hold_was_broken_off_was_not_written() -> None:
    place = Place()
    peer = place.peer("topic.a", live=False)
    place.volatile("topic.a")
    assert peer.held is not None
    peer.held.break_off()
    place.hub.hold(peer)
    place.hub.release(peer)
    assert await place.count() == 0
    assert peer.writes == []


async def test_an_event_that_comes_after_the_question_is_waited_for() -> None:
    place = Place()
    place.peer("topic.a")
    answers = place.ask()
    assert answers == []
    place.durable("topic.a")
    await until(lambda: answers == [1], "the receipt")


async def test_the_answer_comes_though_a_client_never_gets_live() -> None:
    place = Place()
    place.peer("topic.a")
    place.peer("topic.a", live=False)
    place.durable("topic.a")
    assert await place.count() == 1
