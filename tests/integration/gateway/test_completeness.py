"""What one client, or one tail, does not hide from another: each is owed all of the stream, or a gap."""

import asyncio
import json
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.feed.replay import BATCH_BYTES
from gateway.hub.endings import Ending
from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker
from tests.support.feed import deaf, synced, write
from tests.support.gateway import Stream, open_stream, running_gateway
from tests.support.hub import Peer
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState, JobStatus

J1 = "0123456789abcdef" * 2


async def heard(stream: Stream, last: str) -> list[str]:
    """Data of the publishers' events, up to that of `last`."""
    found: list[str] = []
    while not found or found[-1] != last:
        found.append((await stream.next("n")).data)
    return found


async def test_a_newcomer_does_not_hide_what_the_feed_left_out_from_who_was_there(tmp_path: Path) -> None:
    """Its replay set the tail's place past the event that was missing to the others: they never got it."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            with deaf(running, "broadcast"):
                await synced(running)
                await write(publisher, "missed", "broadcast")
            await synced(running)
            async with open_stream(running.url, {"client_id": "b"}) as newcomer:
                await newcomer.connected()
                await until(lambda: all(each.held is None for each in running.gateway.hub.sessions), "it is live")
                await write(publisher, "later", "broadcast")
                assert await heard(newcomer, "later") == ["later"]
            assert await heard(stream, "later") == ["missed", "later"]


async def test_mending_one_tail_does_not_hide_what_is_missing_on_another(tmp_path: Path) -> None:
    """All tails of the session were taken for complete, though only what came after its place had been read."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, [("client_id", "a"), ("topic", "t"), ("topic", "w.*")]) as stream:
            await stream.connected()
            with deaf(running, "broadcast"), deaf(running, "client.a"), deaf(running, "topic.w.*"):
                await synced(running)
                await write(publisher, "b missed", "broadcast")
                await write(publisher, "a missed")
                await write(publisher, "w missed", "topic.w.x")
            await synced(running)
            await write(publisher, "overtakes", "topic.t")
            assert await heard(stream, "overtakes") == ["overtakes"]
            await write(publisher, "a later")
            await write(publisher, "b later", "broadcast")
            await write(publisher, "w later", "topic.w.x")
            found = await heard(stream, "w later")
            assert found == ["b missed", "a missed", "w missed", "a later", "b later", "w later"]


async def test_what_others_have_overtaken_is_not_lost_when_the_connection_to_nats_breaks(tmp_path: Path) -> None:
    """The replay after a break began at the session's place, which is past what is missing on a slower tail."""
    async with (
        broker(tmp_path) as (server, bus),
        fault_proxy(server.port) as way,
        running_gateway(f"nats://127.0.0.1:{way.port}", audit_seconds=0) as running,
    ):
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, [("client_id", "a"), ("topic", "w.*")]) as stream:
            await stream.connected()
            for tail in ("client.a", "topic.w.x", "topic.w.y"):
                await write(publisher, f"had {tail}", tail)
            assert len(await heard(stream, "had topic.w.y")) == 3
            with deaf(running, "client.a"), deaf(running, "topic.w.*"):
                await synced(running)
                await write(publisher, "missed")
                await write(publisher, "w missed", "topic.w.x")
                await write(publisher, "overtakes", "broadcast")
                assert await heard(stream, "overtakes") == ["overtakes"]
                reconnects = running.bus.client.stats["reconnects"]
                way.cut_all(Cut.RST)
                await until(lambda: running.bus.client.stats["reconnects"] > reconnects, "NATS is back")
                assert await heard(stream, "w missed") == ["missed", "w missed"]
            await synced(running)
            await write(publisher, "later")
            assert await heard(stream, "later") == ["later"]
            places = [int(event.id.split("-")[1]) for event in stream.events]
            assert places == sorted(places)


async def test_an_event_that_comes_after_a_later_one_is_not_dropped(tmp_path: Path) -> None:
    """As when a stream's old leader gets its last words out after the new one has spoken: it passed for a repeat."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            with deaf(running, "client.a"):
                await synced(running)
                await write(publisher, "late")
                await write(publisher, "2", "broadcast")
                assert await heard(stream, "2") == ["2"]
            await synced(running)
            place = {"Nats-Stream": "TG_EVENTS", "Nats-Subject": "tg.in.client.a", "Nats-Sequence": "1"}
            place |= {"Nats-Time-Stamp": "2026-01-01T00:00:00Z", "Nats-Last-Sequence": "0"}
            headers = {"Tidegate-Event": "n", **place}
            await bus.client.publish("tg.out.client.a", b"late", headers=headers)
            assert await heard(stream, "late") == ["late"]
            await write(publisher, "3")
            assert await heard(stream, "3") == ["3"]


class Waiting(History):
    """Does not say the stream's position before it is told to."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.asked = 0
        self.told = asyncio.Event()

    async def position(self) -> Position:
        self.asked += 1
        await self.told.wait()
        return await super().position()


async def test_a_client_that_leaves_while_the_stream_is_made_anew_takes_no_other_with_it(tmp_path: Path) -> None:
    """Holding who had gone raised an error that ended the return of all others: they were held for ever."""
    async with (
        broker(tmp_path) as (server, bus),
        running_gateway(server.url, audit_seconds=0) as running,
        AsyncExitStack() as stack,
    ):
        publisher, hub = EventPublisher(bus, History(bus)), running.gateway.hub
        leaver, *others = [
            await stack.enter_async_context(open_stream(running.url, {"client_id": name})) for name in "abcde"
        ]
        for stream in (leaver, *others):
            await stream.connected()
        for data in ("1", "2"):
            await write(publisher, data, "broadcast")
        for stream in others:
            assert await heard(stream, "2") == ["1", "2"]
        history = running.gateway.life._history = Waiting(running.bus)
        await bus.jetstream.delete_stream("TG_EVENTS")
        await ensure_streams(bus, StreamLimits(), update=False)
        await write(publisher, "new 1", "broadcast")
        await until(lambda: history.asked, "it is asked whether there is another stream")
        await leaver.close()
        await until(lambda: len(hub.sessions) == 4, "one has gone")
        history.told.set()
        for stream, name in zip(others, "bcde", strict=True):
            last = await stream.sent_away()
            assert [event.data for event in stream.events if event.event == "n"] == ["1", "2"]
            async with open_stream(running.url, {"client_id": name}, {"last-event-id": last}) as back:
                assert json.loads((await back.next("gap")).data)["reason"] == "epoch"
                assert await heard(back, "new 1") == ["new 1"]
        assert hub.ended["feed"] == 4


class Late(Waiting):
    """Asks at once, and hands the answer over when it is told to."""

    async def position(self) -> Position:
        found = await History.position(self)
        self.asked += 1
        await self.told.wait()
        return found


async def test_an_event_that_comes_before_the_streams_name_is_known_has_its_whole_id(tmp_path: Path) -> None:
    """To the first client of a gateway: its id was a bare number, and its job's stream never ended."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        history = running.gateway.life._history = Late(running.bus)
        headers = {JOB: J1, JOB_END: "1"}
        start = await start_of(bus)
        state = JobState(
            job_id=J1, kind="chat", status=JobStatus.RUNNING, created=1, updated=1, tail="client.a", start=start
        )
        await JobRecords(bus).create(state)

        async def watch(path: str) -> list[str]:
            async with open_stream(running.url, {"client_id": "a"}, path=path) as stream:
                return [(await stream.next("n")).id, (await stream.next("closing")).event]

        watching = asyncio.create_task(watch(f"/api/sse/jobs/{J1}"))
        await until(lambda: history.asked, "it asks for its place")
        await synced(running)
        event_id = (await publisher.durable("client.a", Event("n", "last"), headers=headers)).id
        await until(lambda: running.gateway.subscriptions.received, "the event has come")
        history.told.set()
        assert await watching == [event_id, "closing"]


async def start_of(bus: Bus) -> str:
    position = await History(bus).position()
    return f"{position.epoch}-{position.last}"


async def test_what_a_full_subject_has_dropped_is_a_gap(tmp_path: Path) -> None:
    """Only the stream's first sequence was looked at, which another subject's event keeps where it is."""
    async with (
        broker(tmp_path, StreamLimits(max_per_subject=5)) as (server, bus),
        running_gateway(server.url) as running,
    ):
        publisher = EventPublisher(bus, History(bus))
        epoch = (await History(bus).position()).epoch
        await write(publisher, "keeps the stream's first sequence", "client.other")
        for number in range(20):
            await write(publisher, str(number))
        for params in ({"client_id": "a"}, {"topic": "x", "client_id": "a"}):
            async with open_stream(running.url, params, {"last-event-id": f"{epoch}-1"}) as stream:
                await stream.connected()
                gap = json.loads((await stream.next()).data)
                assert gap == {"reason": "expired", "from": f"{epoch}-1", "to": f"{epoch}-16"}
                assert await heard(stream, "19") == ["15", "16", "17", "18", "19"]
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": f"{epoch}-17"}) as stream:
            await stream.connected()
            assert await heard(stream, "19") == ["16", "17", "18", "19"]
            assert [event.event for event in stream.events].count("gap") == 0


async def test_what_leaves_the_stream_while_nats_is_out_of_reach_is_a_gap_for_open_streams(tmp_path: Path) -> None:
    """Only who came back with an id was told; a stream that stayed open over the outage went on as if nothing was."""
    async with (
        broker(tmp_path, StreamLimits(max_per_subject=5)) as (server, bus),
        fault_proxy(server.port) as way,
        running_gateway(f"nats://127.0.0.1:{way.port}") as running,
    ):
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream, open_stream(running.url) as quiet:
            await stream.connected()
            await quiet.connected()
            had = await write(publisher, "had")
            assert await heard(stream, "had") == ["had"]
            way.refusing = True
            way.cut_all(Cut.RST)
            await until(lambda: not running.bus.connected, "NATS is out of reach")
            for number in range(20):
                await write(publisher, str(number))
            way.refusing = False
            gap = await stream.next("gap", 20)
            assert json.loads(gap.data) == {"reason": "expired", "from": had, "to": had.replace("-1", "-16")}
            assert await heard(stream, "19") == ["15", "16", "17", "18", "19"]
            assert (await quiet.next("gap", 20)).event == "gap"  # what has gone may have been for it


async def test_a_stream_whose_end_is_lost_with_a_disk_is_a_gap_for_open_streams(tmp_path: Path) -> None:
    """Under the same name the sequences began again below the clients' places: what was new passed for repeats."""
    store, copy = tmp_path / "store", tmp_path / "copy"
    async with broker(store) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            for number in range(3):
                await write(publisher, f"kept {number}")
            await server.run.stop(signal.SIGTERM)
            shutil.copytree(store, copy)
            async with nats_server(store, server.port) as second:
                for number in range(5):
                    last = await write(publisher, f"lost {number}")
                assert len(await heard(stream, "lost 4")) == 8
                await second.run.stop(signal.SIGKILL)
            shutil.rmtree(store)
            shutil.copytree(copy, store)
            async with nats_server(store, server.port):
                assert await stream.sent_away() == last
                async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": last}) as back:
                    gap = json.loads((await back.next("gap")).data)
                    assert gap == {"reason": "epoch", "from": last, "to": last.replace("-8", "-0")}
                    for number in range(7):
                        await write(publisher, f"new {number}")
                    # What is there may have been stored since: rather twice than never.
                    again = [f"kept {number}" for number in range(3)]
                    assert await heard(back, "new 6") == again + [f"new {number}" for number in range(7)]


async def test_mending_a_large_hole_takes_no_more_memory_than_a_replay(tmp_path: Path) -> None:
    """All of it was one write, 60 MB for a client that read nothing."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher, peer = EventPublisher(bus, History(bus)), Peer()

        async def start() -> None:
            pass

        def welcome(_: EventId, __: bool) -> bytes:
            return b"hello"

        await running.gateway.attachments.attach(peer, ["client.a", "broadcast"], None, start, welcome)
        with deaf(running, "client.a"):
            await synced(running)
            await publisher.durable_all([Durable("client.a", Event("n", "x" * 20_000))] * 100, headers={})
            await write(publisher, "overtakes", "broadcast")
            await until(lambda: b"overtakes" in peer.writes[-1], "it was overtaken")
        await synced(running)
        peer.set_paused(True)
        await write(publisher, "shows the hole")
        await until(lambda: peer.room is not None, "the mending waits for the client")
        before = len(peer.writes)
        peer.set_paused(False)
        await until(lambda: b"shows the hole" in peer.writes[-1], "it is mended")
        assert sum(write.count(b"x" * 20_000) for write in peer.writes) == 100
        assert max(map(len, peer.writes[before:])) < BATCH_BYTES + 21_000
        running.gateway.hub.end(peer, Ending.CLIENT)
        peer.lost()
