"""Repairs of tails over a stream in memory, with something that happens in the middle of one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from gateway import frame
from gateway.hub.endings import Ending
from tests.support.hub import Peer
from tests.support.memory_feed import Feed
from tests.support.memory_stream import MemoryStream
from tests.support.skipping_loop import skipping_loop
from tidegate_common.bus.events.history import Stored
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.providers import Telemetry, telemetry

LARGE = "x" * 200
"""Two of these are more than a hold takes."""


class Stream(MemoryStream):
    """Something happens to it once, when it is read next, or asked for last events."""

    def __init__(self) -> None:
        super().__init__()
        self.before_page: Callable[[], None] = lambda: None
        self.before_survey: Callable[[], None] = lambda: None
        self.after_survey: Callable[[], None] = lambda: None
        self.reads = 0

    async def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        self.reads += 1
        happens, self.before_page = self.before_page, lambda: None
        happens()
        async for stored in super().after(tail, sequence, upto):
            yield stored

    async def latest(self, tails: Sequence[str], after: int, upto: int = 0) -> dict[str, int]:
        happens, self.before_survey = self.before_survey, lambda: None
        happens()
        found = await super().latest(tails, after, upto)
        happens, self.after_survey = self.after_survey, lambda: None
        happens()
        return found


class World:
    """A feed over such a stream."""

    def __init__(self, signals: Telemetry) -> None:
        self.stream = Stream()
        self.feed = Feed(self.stream, signals)
        self.peers: list[Peer] = []

    async def come(self, *tails: str) -> Peer:
        peer = Peer()
        self.peers.append(peer)

        async def start() -> None:
            pass

        def welcome(position: EventId, _: bool) -> bytes:
            return b""

        await self.feed.attachments.attach(peer, list(tails), None, start, welcome)
        assert peer.held is None
        return peer

    async def aclose(self) -> None:
        for peer in self.peers:
            self.feed.hub.end(peer, Ending.CLIENT)
            peer.lost()
        await self.feed.aclose()


def got(peer: Peer) -> list[str]:
    return [event.data.decode()[:1] for event in frame.events(b"".join(peer.writes)) if event.data]


@pytest.fixture(scope="module")
def signals() -> Iterator[Telemetry]:
    with telemetry("gateway", {}) as made:
        yield made


@pytest.fixture
def play(signals: Telemetry) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]:
    """Runs a history, in a loop whose time passes when there is nothing to do."""

    def run(history: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            world = World(signals)
            await history(world)
            await world.aclose()

        with skipping_loop() as loop:
            loop.run_until_complete(whole())

    return run


Play = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


def lose_one(world: World, tail: str) -> None:
    """Leaves `a` out on `tail`; `b` shows it."""
    world.stream.publish(tail, "a", (tail,))
    world.stream.publish(tail, "b")


def test_a_repair_that_can_not_read_reads_all_tails_when_it_can(play: Play) -> None:
    """What came on the others meanwhile is held, and is no newer than the place that is asked for again."""

    async def history(world: World) -> None:
        peer = await world.come("client.a", "broadcast")

        def fail() -> None:
            world.stream.publish("broadcast", "c")
            raise BrokerUnavailable("a page is lost")

        world.stream.before_page = fail
        lose_one(world, "client.a")
        await asyncio.sleep(5)
        assert got(peer) == ["a", "b", "c"]

    play(history)


def test_a_repair_whose_hold_breaks_reads_all_tails(play: Play) -> None:
    """What came on the others was held, and is forgotten."""

    async def history(world: World) -> None:
        peer = await world.come("client.a", "broadcast")

        def flood() -> None:
            for name in "cd":
                world.stream.publish("broadcast", name + LARGE)

        world.stream.before_page = flood
        lose_one(world, "client.a")
        await asyncio.sleep(5)
        assert got(peer) == ["a", "b", "c", "d"]

    play(history)


def test_a_hold_that_breaks_before_the_repair_reads_has_it_read_all_tails(play: Play) -> None:
    async def history(world: World) -> None:
        peer = await world.come("client.a", "broadcast")

        def flood() -> None:
            for name in "cd":
                world.stream.publish("broadcast", name + LARGE)

        world.stream.after_survey = flood
        lose_one(world, "client.a")
        await asyncio.sleep(5)
        assert got(peer) == ["a", "b", "c", "d"]

    play(history)


def test_a_hole_on_another_tail_during_a_repair_is_read_too(play: Play) -> None:
    async def history(world: World) -> None:
        peer = await world.come("client.a", "broadcast")

        def lose_another() -> None:
            world.stream.publish("broadcast", "c", ("broadcast",))
            world.stream.publish("broadcast", "d")

        world.stream.before_page = lose_another
        lose_one(world, "client.a")
        await asyncio.sleep(5)
        assert got(peer) == ["a", "b", "c", "d"]

    play(history)


def test_a_connection_lost_in_the_middle_of_a_survey_costs_another_survey_and_no_page(play: Play) -> None:
    """Else each of 1,000 clients that missed nothing would read the stream."""

    async def history(world: World) -> None:
        for number in range(10):
            await world.come(f"client.{number}", "broadcast")
        world.stream.publish("broadcast", "a")
        world.stream.before_survey = world.stream.cut
        world.stream.cut()
        await world.stream.come_back()
        await asyncio.sleep(0.5)
        assert not world.stream.connected, "lost for the second time"
        await world.stream.come_back()
        await asyncio.sleep(5)
        assert [got(peer) for peer in world.peers] == [["a"]] * 10
        assert world.stream.reads == 0

    play(history)


def test_a_survey_that_fails_leaves_each_session_to_read_by_itself(play: Play) -> None:
    """NATS tells its position, and not what is last: nobody is live before it has been read."""

    async def history(world: World) -> None:
        peer = await world.come("client.a", "broadcast")

        def fail() -> None:
            raise BrokerUnavailable("an answer is lost")

        world.stream.before_survey = fail
        lose_one(world, "client.a")
        await asyncio.sleep(5)
        assert got(peer) == ["a", "b"]

    play(history)
