"""Holes in the live feed: the stream says which event came before, so a gateway sees that one has not come."""

import asyncio
from pathlib import Path

import pytest

from gateway.hub.endings import Ending
from tests.support.bus import broker
from tests.support.feed import deaf, synced
from tests.support.gateway import open_stream, running_gateway
from tests.support.hub import Peer
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.events import Event


async def test_what_the_feed_left_out_is_read_from_the_stream_before_anything_later(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))

        async def publish(data: str, tail: str = "client.a") -> None:
            await publisher.durable(tail, Event("n", data), headers={})

        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await publish("1")
            with deaf(running, "client.a"):
                await synced(running)
                for data in ("2", "3"):
                    await publish(data)
            await synced(running)
            for data in ("4", "5"):
                await publish(data)
            heard = [await stream.next() for _ in range(5)]
            assert [event.data for event in heard] == ["1", "2", "3", "4", "5"]
            ids = [int(event.id.split("-")[1]) for event in heard]
            assert ids == sorted(set(ids))
            assert running.gateway.repairs.holes == 1


async def test_an_event_that_others_have_overtaken_comes_late_and_takes_no_id_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))

        async def publish(data: str, tail: str = "client.a") -> None:
            await publisher.durable(tail, Event("n", data), headers={})

        await publish("before the client came")
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            with deaf(running, "client.a"):
                await synced(running)
                await publish("missed")
                await publish("overtakes", "broadcast")
                assert (await stream.next()).data == "overtakes"
            await synced(running)
            await publish("shows the hole")
            await publish("after", "broadcast")
            heard = [await stream.next() for _ in range(3)]
            assert [event.data for event in heard] == ["missed", "shows the hole", "after"]
            # The late one has no id of its own: the parser shows the last one before it.
            assert [int(event.id.split("-")[1]) for event in heard] == [3, 4, 5]


async def test_a_wildcard_sees_a_hole_on_one_of_its_subjects_and_takes_no_first_event_for_one(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))

        async def publish(data: str, topic: str) -> None:
            await publisher.durable(f"topic.t.{topic}", Event("n", data), headers={})

        for topic in ("x", "y"):
            await publish("before the client came", topic)
        async with open_stream(running.url, {"client_id": "a", "topic": "t.*"}) as stream:
            await stream.connected()
            for topic in ("x", "y", "new"):
                await publish(f"{topic}1", topic)
            assert [(await stream.next()).data for _ in range(3)] == ["x1", "y1", "new1"]
            assert running.gateway.repairs.holes == 0
            with deaf(running, "topic.t.*"):
                await synced(running)
                await publish("x2", "x")
            await synced(running)
            await publish("y2", "y")
            await publish("x3", "x")
            assert sorted([(await stream.next()).data for _ in range(3)]) == ["x2", "x3", "y2"]
            assert running.gateway.repairs.holes == 1


async def test_an_event_that_its_time_to_live_removed_is_no_hole(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            for data in ("1", "2"):
                await publisher.durable("client.a", Event("n", data), headers={})
            await bus.jetstream.delete_msg("TG_EVENTS", 2)
            await publisher.durable("client.a", Event("n", "3"), headers={})
            assert [(await stream.next()).data for _ in range(3)] == ["1", "2", "3"]
            assert running.gateway.repairs.holes == 0


async def test_an_audit_finds_what_no_later_event_shows(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        params = [("client_id", "a"), ("topic", "room.*")]
        async with open_stream(running.url, params) as stream:
            await stream.connected()
            with deaf(running, "client.a"), deaf(running, "topic.room.*"):
                await synced(running)
                for tail, data in (("client.a", "1"), ("topic.room.b", "2"), ("client.a", "3")):
                    await publisher.durable(tail, Event("n", data), headers={})
                await running.gateway.audit.look()
                heard = [await stream.next() for _ in range(3)]
                assert [event.data for event in heard] == ["1", "2", "3"]
                ids = [int(event.id.split("-")[1]) for event in heard]
                assert ids == sorted(set(ids))
            await synced(running)
            await publisher.durable("broadcast", Event("n", "4"), headers={})
            assert (await stream.next()).data == "4"
            for _ in range(3):
                await running.gateway.audit.look()
            await publisher.durable("client.a", Event("n", "5"), headers={})
            assert (await stream.next()).data == "5"


async def test_an_audit_takes_nothing_for_missed_that_came_in_time(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, [("client_id", "a"), ("topic", "room.*")]) as stream:
            await stream.connected()
            for tail in ("client.a", "topic.room.b", "broadcast", "client.other", "topic.other"):
                await publisher.durable(tail, Event("n", tail), headers={})
            assert [(await stream.next()).data for _ in range(3)] == ["client.a", "topic.room.b", "broadcast"]
            for _ in range(3):
                await running.gateway.audit.look()
            assert running.gateway.repairs.holes == 0


async def test_an_audit_finds_a_stream_that_was_made_anew_and_nothing_came_since(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await bus.jetstream.delete_stream(bus.subjects.events_stream)
            await ensure_streams(bus, StreamLimits(), update=False)
            await running.gateway.audit.look()
            await stream.sent_away()


async def test_the_first_event_of_an_empty_stream_can_be_a_hole_too(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            with deaf(running, "client.a"):
                await synced(running)
                await publisher.durable("client.a", Event("n", "first"), headers={})
            await synced(running)
            await publisher.durable("client.a", Event("n", "second"), headers={})
            assert [(await stream.next()).data for _ in range(2)] == ["first", "second"]


async def test_what_a_replay_brings_while_a_hole_shows_is_not_brought_again(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher, peer = EventPublisher(bus, History(bus)), Peer()

        async def publish(data: str) -> str:
            return (await publisher.durable("client.a", Event("n", data), headers={})).id

        async def start() -> None:
            peer.set_paused(True)  # the replay stands still before its first write

        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            last = await publish("had")
            assert (await stream.next()).data == "had"
            with deaf(running, "client.a"):
                await synced(running)
                await publish("missed")
                attach = running.gateway.attachments.attach
                attaching = asyncio.create_task(attach(peer, ["client.a"], last, start, lambda _, __: b"hello"))
                await until(lambda: peer.room is not None, "the replay stands still")
            await synced(running)
            await publish("shows the hole")
            await until(lambda: running.gateway.repairs.holes, "the hole is seen")
            peer.set_paused(False)
            await attaching
            written = b"".join(peer.writes)
            assert [written.count(b"data: %s\n" % data) for data in (b"had", b"missed", b"shows the hole")] == [0, 1, 1]
            running.gateway.hub.end(peer, Ending.CLIENT)
            peer.lost()


@pytest.mark.parametrize("lost", ["topic.t.*", "topic.*.x"])
async def test_what_came_on_one_of_two_overlapping_topics_is_missing_on_none(tmp_path: Path, lost: str) -> None:
    """NATS sends an event once for each of them: a connection that broke off between the two copies brought the event,
    and its repair brought it once more, without an id."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))

        async def publish(data: str) -> None:
            await publisher.durable("topic.t.x", Event("n", data), headers={})

        async with open_stream(running.url, {"client_id": "a", "topic": ["*.x", "t.*"]}) as stream:
            await stream.connected()
            await publish("1")
            assert (await stream.next()).data == "1"
            with deaf(running, lost):
                await synced(running)
                await publish("2")
                assert (await stream.next()).data == "2"
            await synced(running)
            for data in ("3", "4"):
                await publish(data)
            assert [(await stream.next()).data for _ in range(2)] == ["3", "4"]
            assert running.gateway.repairs.holes == 1
