"""Coming back: a client by its last id, all clients after NATS was away, and a gateway that is stopped."""

import asyncio
import json
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.hub.endings import Ending
from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.nats import nats_server
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import PAGE, History, Position
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.requests.pages import Page
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.events import Event
from tidegate_common.errors import BrokerUnavailable


async def test_what_was_missed_is_replayed_in_order_over_all_tails_and_then_it_is_live(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        query = {"client_id": "a", "user_id": "u", "topic": ["t.*", "*.x"]}
        async with open_stream(running.url, query) as stream:
            await stream.connected()
            last_id = stream.events[0].id
        tails = ["client.a", "broadcast", "topic.t.x", "client.other", "user.u"]
        total = PAGE * 2
        for number in range(total):
            await publisher.durable(tails[number % 5], Event("n", str(number)), headers={})
        async with open_stream(running.url, query, {"last-event-id": last_id}) as stream:
            assert (await stream.connected())["resumed"]
            assert stream.events[0].id == last_id
            await publisher.durable("broadcast", Event("n", "live"), headers={})
            due = [str(number) for number in range(total) if number % 5 != 3] + ["live"]
            assert [(await stream.next()).data for _ in due] == due
        assert running.gateway.replay.replayed >= len(due) - 1


async def test_clients_that_come_back_together_read_what_they_share_once(tmp_path: Path) -> None:
    """Each had its own page of every broadcast: thousands of them at once, when a gateway died."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        start, clients, missed = await _start(bus), 40, PAGE + 20
        for number in range(missed):
            await publisher.durable("broadcast", Event("n", str(number)), headers={})
        async with AsyncExitStack() as open_streams:
            streams = await asyncio.gather(
                *(
                    open_streams.enter_async_context(
                        open_stream(running.url, {"client_id": str(number)}, {"last-event-id": start})
                    )
                    for number in range(clients)
                )
            )
            for stream in streams:
                await stream.connected()
                assert [(await stream.next()).data for _ in range(missed)] == [str(number) for number in range(missed)]
        own_pages, shared_pages = clients, 2
        assert running.gateway.history.pages <= own_pages + shared_pages * 2


async def test_a_client_cut_off_before_its_first_event_loses_nothing(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            last_id = stream.events[0].id
        await publisher.durable("client.a", Event("n", "missed"), headers={})
        async with open_stream(running.url, {"client_id": "a", "last_event_id": last_id}) as stream:
            await stream.connected()
            assert (await stream.next()).data == "missed"


async def test_the_seam_of_replay_and_live_has_neither_hole_nor_repeat_while_events_come(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        total = 1500

        async def publish() -> None:
            for number in range(1, total + 1):
                await publisher.durable("client.a", Event("n", str(number)), headers={})

        publishing = asyncio.create_task(publish())
        heard: list[int] = []
        last_id: str | None = None
        while len(heard) < total:
            headers = {"last-event-id": last_id} if last_id else {"last-event-id": await _start(bus)}
            async with open_stream(running.url, {"client_id": "a"}, headers) as stream:
                await stream.connected()
                for _ in range(min(97, total - len(heard))):
                    event = await stream.next()
                    heard.append(int(event.data))
                    last_id = event.id
        await publishing
        assert heard == list(range(1, total + 1))


async def _start(bus: object) -> str:
    position = await History(bus).position()  # type: ignore[arg-type]
    return f"{position.epoch}-0"


@pytest.mark.parametrize(("last_event_id", "due"), [("otherone-5", ["old", "new"]), ("nonsense", ["new"])])
async def test_an_id_that_is_not_of_this_stream_gets_a_gap_and_then_what_it_can_have_missed(
    tmp_path: Path, last_event_id: str, due: list[str]
) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        await publisher.durable("client.a", Event("n", "old"), headers={})
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": last_event_id}) as stream:
            assert not (await stream.connected())["resumed"]
            gap = json.loads((await stream.next("gap")).data)
            assert (gap["reason"], gap["from"], gap["to"]) == ("epoch", last_event_id, stream.events[0].id)
            await publisher.durable("client.a", Event("n", "new"), headers={})
            assert [(await stream.next()).data for _ in due] == due


async def test_one_gap_says_that_the_id_is_of_another_life_though_a_subject_is_full(tmp_path: Path) -> None:
    async with (
        broker(tmp_path, StreamLimits(max_per_subject=3)) as (server, bus),
        running_gateway(server.url) as running,
    ):
        publisher = EventPublisher(bus, History(bus))
        for number in range(8):
            await publisher.durable("client.a", Event("n", str(number)), headers={})
            await publisher.durable("broadcast", Event("n", str(number)), headers={})
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": "otherone-5"}) as stream:
            await stream.connected()
            assert [(await stream.next()).event for _ in range(7)] == ["gap"] + ["n"] * 6


@pytest.mark.parametrize("way", ["header", "query", "body"])
async def test_an_id_of_any_length_is_answered_as_any_other_that_is_none_of_ours(tmp_path: Path, way: str) -> None:
    """Over 256 characters it was refused with 422, after which EventSource never comes back."""
    long = "x" * 5000
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        params = {"last_event_id": long} if way == "query" else None
        headers = {"last-event-id": long} if way == "header" else None
        body = {"last_event_id": long} if way == "body" else None
        async with open_stream(running.url, params, headers, body) as stream:
            assert not (await stream.connected())["resumed"]
            gap = json.loads((await stream.next("gap")).data)
            assert (gap["reason"], gap["from"], gap["to"]) == ("epoch", long[:64], stream.events[0].id)


async def test_streams_stay_open_while_nats_is_away_and_get_what_came_meanwhile(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        settings = {"heartbeat_seconds": 0.2}
        async with running_gateway(server.url, **settings) as running:
            publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
            async with open_stream(running.url, {"client_id": "a"}) as stream:
                await stream.connected()
                await publisher.durable("client.a", Event("n", "before"), headers={})
                await stream.next()
                await server.run.stop(signal.SIGKILL)
                await until(lambda: not running.bus.connected, "the gateway notices")
                beats = stream.comments
                await until(lambda: stream.comments > beats + 2, "heartbeats go on")
                async with nats_server(tmp_path, server.port):
                    # Whichever of the two is back first: these are heard live or replayed, each once.
                    for number in range(20):
                        await publisher.durable("client.a", Event("n", str(number)), headers={})
                    heard = [(await stream.next(seconds=20)).data for _ in range(20)]
                    assert heard == [str(number) for number in range(20)]
                    await publisher.durable("client.a", Event("n", "after"), headers={})
                    assert (await stream.next()).data == "after"


async def test_nats_lost_in_the_middle_of_a_replay_costs_neither_order_nor_an_event(tmp_path: Path) -> None:
    """The client does not read at first, so that its replay stands still when NATS goes."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, max_backlog_bytes=20_000) as running:
        publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
        before, padding = 400, "x" * 50_000
        for number in range(before):
            await publisher.durable("client.a", Event("n", f"{number} {padding}"), headers={})
        host, port = running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        query = f"client_id=a&last_event_id={await _start(bus)}"
        writer.write(f"GET /api/sse?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: any(session.room for session in running.gateway.hub.sessions), "the replay stands still")
        await publisher.durable("client.a", Event("n", f"{before} held"), headers={})
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not running.bus.connected, "the gateway notices")
        async with nats_server(tmp_path, server.port):
            await publisher.durable("client.a", Event("n", f"{before + 1} after"), headers={})
            await until(lambda: running.bus.connected, "NATS is back", 20)
            received = bytearray()
            async with asyncio.timeout(30):
                while b" after" not in received[-200:]:
                    received += await reader.read(1 << 20)
            numbers = [int(found) for found in re.findall(rb"\ndata: (\d+) ", received)]
            assert numbers == list(range(before + 2))
            writer.close()


async def test_a_client_that_reads_a_long_replay_steadily_is_not_taken_for_a_slow_one(tmp_path: Path) -> None:
    """Replayed events did not count as events: after four heartbeats whoever had a full buffer was closed as slow."""
    settings = {"heartbeat_seconds": 0.1, "max_backlog_bytes": 100_000}
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, **settings) as running:
        publisher, start = EventPublisher(bus, History(bus)), await _start(bus)
        events = [Durable("client.a", Event("n", "x" * 50_000))] * 40
        for _ in range(4):
            await publisher.durable_all(events, headers={})
        host, port = running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 16)
        writer.write(f"GET /api/sse?client_id=a&last_event_id={start} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = 0
        while received < len(events) * 4 * 50_000:
            piece = await reader.read(1 << 16)
            assert piece, f"ended after {received} bytes: {dict(running.gateway.hub.ended)}"
            received += len(piece)
            await asyncio.sleep(0.01)  # its pace: some 5 MB a second
        writer.close()


class Interrupted(History):
    """Fails once, when it is asked for a client's second page."""

    failed = False

    async def _page(self, tail: str, start: int) -> Page:
        if tail == "client.a" and start > PAGE and not self.failed:
            self.failed = True
            raise BrokerUnavailable("NATS went away between two pages")
        return await super()._page(tail, start)


async def test_a_replay_that_is_interrupted_between_two_pages_loses_neither(
    tmp_path: Path,
) -> None:
    """A page that was read waited for more before it was written; the place had moved on, and the page was lost."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        total = PAGE * 2
        for number in range(total):
            await publisher.durable("client.a", Event("n", str(number)), headers={})
        history = running.gateway.replay.history = Interrupted(running.bus)
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": await _start(bus)}) as stream:
            await stream.connected()
            assert [(await stream.next()).data for _ in range(total)] == [str(number) for number in range(total)]
        assert history.failed


@BOTH_PATHS
async def test_stopping_a_gateway_tells_its_clients_and_ends_in_time(tmp_path: Path, streams: str) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url, streams=streams) as running:
        async with open_stream(running.url) as one, open_stream(running.url) as other:
            await one.connected()
            await other.connected()
            started = asyncio.get_running_loop().time()
            await running.stop()
            assert asyncio.get_running_loop().time() - started < 2
            for stream in (one, other):
                closing = await stream.next()
                assert (closing.event, json.loads(closing.data)["reason"]) == ("closing", "drain")
            await until(lambda: one.ended and other.ended, "the streams end")
            assert running.gateway.hub.sessions == {}


class Waiting(History):
    """Does not say the stream's position before it is told to."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.asked = asyncio.Event()
        self.told = asyncio.Event()

    async def position(self) -> Position:
        self.asked.set()
        await self.told.wait()
        return await super().position()


@BOTH_PATHS
async def test_a_stream_that_is_still_being_attached_when_a_drain_begins_is_told_so_too(
    tmp_path: Path, streams: str
) -> None:
    """Without a socket of its own yet, the end passed it by: it was opened, and cut off without a word later."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url, streams=streams) as running:
        history = Waiting(running.bus)
        running.gateway.life._history = history

        async def opened() -> list[str]:
            async with open_stream(running.url) as stream:
                await until(lambda: stream.ended, "the stream ends")
                return [event.event for event in stream.events]

        opening = asyncio.create_task(opened())
        await history.asked.wait()
        await running.gateway.drain()
        history.told.set()
        assert "closing" in await opening
        assert running.gateway.hub.ended["drain"] == 1
        assert running.gateway.admission.active == 0


@BOTH_PATHS
async def test_a_client_that_does_not_read_is_closed_and_loses_nothing_when_it_comes_back(
    tmp_path: Path, streams: str
) -> None:
    async with broker(tmp_path) as (server, bus):
        async with running_gateway(server.url, max_backlog_bytes=20_000, streams=streams) as running:
            publisher = EventPublisher(bus, History(bus))
            async with open_stream(running.url, {"client_id": "healthy"}) as healthy:
                await healthy.connected()
                last_id = healthy.events[0].id
                host, port = running.url.removeprefix("http://").split(":")
                _, writer = await asyncio.open_connection(host, int(port), limit=1024)
                writer.write(b"GET /api/sse?client_id=slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await until(lambda: running.gateway.admission.active == 2, "the slow client is there")
                sent = 0
                hub = running.gateway.hub
                while not any(session.ending is Ending.SLOW for session in hub.sessions):
                    await publisher.durable("broadcast", Event("n", f"{sent} " + "x" * 50_000), headers={})
                    sent += 1
                    assert sent < 500, "a client that reads nothing was never closed"
                for number in range(sent):
                    assert (await healthy.next()).data.startswith(f"{number} ")
                await until(lambda: hub.ended["slow"] == 1, "a peer that does not take its farewell is cut off")
                writer.close()
            async with open_stream(running.url, {"client_id": "slow"}, {"last-event-id": last_id}) as back:
                await back.connected()
                for number in range(sent):
                    assert (await back.next()).data.startswith(f"{number} ")
