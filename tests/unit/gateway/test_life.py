"""The end of a life of the stream, over a stream in memory: nobody gets anything of another life than its own."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway import frame
from gateway.hub.endings import Ending
from tests.support.hub import Peer
from tests.support.memory_feed import Feed
from tests.support.memory_stream import MemoryStream
from tests.support.skipping_loop import skipping_loop
from tidegate_common.contract.ids import EventId
from tidegate_common.telemetry.providers import Telemetry, telemetry


@pytest.fixture(scope="module")
def signals() -> Iterator[Telemetry]:
    with telemetry("gateway", {}) as made:
        yield made


async def attach(feed: Feed, peer: Peer, last_event_id: str | None = None, tails: tuple[str, ...] = ("a",)) -> None:
    async def start() -> None:
        pass

    def welcome(position: EventId, _: bool) -> bytes:
        return b""

    await feed.attachments.attach(peer, list(tails), last_event_id, start, welcome)


def got(peer: Peer) -> list[str]:
    return [event.data.decode() for event in frame.events(b"".join(peer.writes)) if event.event_type == b"n"]


def test_what_was_read_before_the_stream_lost_its_end_is_not_replayed_after_that(signals: Telemetry) -> None:
    """It keeps its epoch, and gives the sequences again. Clients come back to one tail within two seconds."""

    async def history() -> None:
        stream, peers = MemoryStream(), [Peer() for _ in range(5)]
        feed = Feed(stream, signals)
        await attach(feed, peers[0])
        for data in ("1", "2", "3 lost", "4 lost"):
            stream.publish("a", data)
        await attach(feed, peers[1], "one-1")
        await asyncio.sleep(0)
        assert got(peers[1]) == ["2", "3 lost", "4 lost"]
        del stream.events[2:]
        stream.publish("a", "3")
        await asyncio.sleep(1)  # all are ended by then, and what was read before is kept
        stream.publish("a", "4")
        assert {peer.ending for peer in peers[:2]} == {Ending.FEED}
        for peer in peers[:2]:
            peer.lost()
        for peer in peers[2:4]:
            await attach(feed, peer, "one-2")
        assert [got(peer) for peer in peers[2:4]] == [["3", "4"]] * 2
        await feed.aclose()

    with skipping_loop() as loop:
        loop.run_until_complete(history())


def test_who_is_being_attached_when_a_life_ends_gets_a_place_in_the_next(signals: Telemetry) -> None:
    """At whichever moment: it has either no place yet, and is live in the next life, or one, and is ended."""

    async def history(moment: int) -> None:
        stream, peer = MemoryStream(), Peer()
        feed = Feed(stream, signals)
        await attach(feed, Peer())
        stream.publish("a", "old")
        attaching = asyncio.ensure_future(attach(feed, peer, "one-0"))
        for _ in range(moment):
            await asyncio.sleep(0)
        feed.life.end()
        stream.events.clear()
        stream.epoch = "two"
        await attaching
        stream.publish("a", "new")
        await asyncio.sleep(5)
        if peer.ending is None:
            assert got(peer)[-1:] == ["new"]
            assert got(peer).count("new") == 1
            assert b"old" not in b"".join(peer.writes)
        else:
            assert peer.ending is Ending.FEED
            assert "new" not in got(peer)
        await feed.aclose()

    for moment in range(12):
        with skipping_loop() as loop:
            loop.run_until_complete(history(moment))


def test_who_is_being_repaired_when_a_life_ends_gets_nothing_more(signals: Telemetry) -> None:
    async def history(moment: int) -> None:
        stream, peer = MemoryStream(), Peer()
        feed = Feed(stream, signals)
        await attach(feed, peer)
        stream.publish("a", "lost", ("a",))
        stream.publish("a", "old")
        for _ in range(moment):
            await asyncio.sleep(0)
        before = got(peer)
        feed.life.end()
        stream.events.clear()
        stream.epoch = "two"
        stream.publish("a", "new")
        await asyncio.sleep(5)
        assert peer.ending is Ending.FEED
        assert got(peer) == before
        await feed.aclose()

    for moment in range(12):
        with skipping_loop() as loop:
            loop.run_until_complete(history(moment))
