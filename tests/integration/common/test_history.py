"""What the stream keeps is read whole, page by page, or not at all: what is short is never taken for the end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import SUBJECTS, broker, connected
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import PAGE, History
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.contract.events import Event, Receipt
from tidegate_common.errors import BrokerUnavailable


async def read(history: History, tail: str, upto: int) -> list[int]:
    return [stored.sequence async for stored in history.after(tail, 0, upto)]


async def test_events_that_are_more_than_the_server_sends_for_one_request_are_all_read(tmp_path: Path) -> None:
    """The server ends an answer at 64 MB: the page was short, and what came after it was lost without a word."""
    async with broker(tmp_path) as (_, bus):
        history, count = History(bus), 75
        publisher = EventPublisher(bus, history)
        for _ in range(count):
            await publisher.durable("client.a", Event("n", "x" * 1_000_000), headers={})
        assert await read(history, "client.a", count) == list(range(1, count + 1))


async def test_many_large_reads_at_once_keep_the_connection(tmp_path: Path) -> None:
    """Together they were more than may wait for a connection at the server, which cut it off as a slow consumer."""
    readers, heard = 48, list[bytes]()
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        bus.client.subscribe_direct("asked", lambda *message: heard.append(message[0]))
        await EventPublisher(bus, History(bus)).durable_all(
            [Durable("client.a", Event("n", "x" * 16_000))] * PAGE, headers={}
        )
        async with connected(f"nats://127.0.0.1:{way.port}") as slow:
            (link,) = way.links
            link.pause(True)
            history, others = History(slow), History(bus)
            reading = [asyncio.create_task(read(history, "client.a", PAGE)) for _ in range(readers)]
            await until(lambda: history.pages == readers, "all have asked")
            slow.client.publish_direct("asked", b"")
            await until(lambda: heard, "the server has their questions")
            for _ in range(readers):  # others' answers come meanwhile
                assert len(await read(others, "client.a", PAGE)) == PAGE
            link.pause(False)
            assert await asyncio.gather(*reading) == [list(range(1, PAGE + 1))] * readers
            assert slow.client.stats["reconnects"] == 0


async def test_a_replay_of_small_events_is_one_request(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        await EventPublisher(bus, history).durable_all(
            [Durable("client.a", Event("n", "x" * 500))] * (PAGE - 1), headers={}
        )
        assert len(await read(history, "client.a", PAGE)) == PAGE - 1
        assert history.pages == 1


async def test_the_last_events_of_many_subjects_are_all_told_however_large_they_are(tmp_path: Path) -> None:
    """The answer ends where a page does, and the subjects after it seemed to have nothing."""
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        tails = [f"client.c{number}" for number in range(40)]
        events = [Durable(tail, Event("n", "x" * 100_000)) for tail in tails]
        receipts = await EventPublisher(bus, history).durable_all(events, headers={})
        assert all(isinstance(each, Receipt) for each in receipts)
        for after in (0, 25, 40):
            latest = await history.latest(tails, after)
            assert latest is not None
            assert latest == {tail: number for number, tail in enumerate(tails, 1) if number > after}


async def test_a_read_that_is_under_way_fails_as_soon_as_the_connection_is_lost(tmp_path: Path) -> None:
    """It waited five seconds for an answer that could not come, or that came torn on the next connection."""
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        await EventPublisher(bus, History(bus)).durable("client.a", Event("n", "1"), headers={})
        async with connected(f"nats://127.0.0.1:{way.port}") as reader:
            history = History(reader)
            (link,) = way.links
            link.pause(True)
            asked = [history.position(), read(history, "client.a", 1), history.last_on("client.a")]
            reading = [asyncio.ensure_future(each) for each in asked]
            await until(lambda: reader.inbox._collecting and reader.inbox._waiting, "all are under way")
            way.refusing = True
            link.end(Cut.RST)
            async with asyncio.timeout(2):
                for found in await asyncio.gather(*reading, return_exceptions=True):
                    assert isinstance(found, BrokerUnavailable)


def message(sequence: int, last: int, left: int) -> bytes:
    return (
        f"NATS/1.0\r\nNats-Stream: TG_EVENTS\r\nNats-Subject: tg.in.client.a\r\nNats-Sequence: {sequence}\r\n"
        f"Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: {left}\r\nNats-Last-Sequence: {last}\r\n\r\n"
    ).encode()


def end(last: int, left: int = 0) -> bytes:
    return f"NATS/1.0 204 EOB\r\nNats-Num-Pending: {left}\r\nNats-Last-Sequence: {last}\r\n\r\n".encode()


@asynccontextmanager
async def answering(data: Path, *answers: Sequence[bytes]) -> AsyncIterator[History]:
    """History of a stream that is not there: each read of it gets the next of `answers`, message by message."""
    async with (
        nats_server(data, jetstream=False) as server,
        connect(server.url, SUBJECTS, "peer") as peer,
        connect(server.url, SUBJECTS, "reader") as reader,
    ):
        due = iter(answers)

        async def answer(ask: object) -> None:
            for block in next(due):
                peer.client.request_direct(ask.reply, b"nobody", block, b"")  # type: ignore[attr-defined]

        await peer.client.subscribe("$JS.API.DIRECT.GET.TG_EVENTS", cb=answer)
        await peer.round_trip()
        yield History(reader)


async def test_a_page_is_the_last_one_when_the_server_says_so_however_short_those_before_it_are(tmp_path: Path) -> None:
    pages = [
        [message(3, 0, 3), end(3, 3)],
        [message(5, 0, 2), end(5, 2)],
        [message(6, 0, 1), message(9, 6, 0), end(9, 1)],
    ]
    async with answering(tmp_path, *pages, [b"NATS/1.0 404 Not Found\r\n\r\n"]) as history:
        assert await read(history, "client.a", 20) == [3, 5, 6, 9]
        assert history.pages == 4


async def test_subjects_that_are_too_many_for_one_message_are_asked_for_in_several(tmp_path: Path) -> None:
    """The question was larger than the server takes, and the error ended the look for events that the feed had not
    brought, for as long as the gateway lived."""
    async with nats_server(tmp_path, config="max_payload: 16384") as nats, connected(nats.url) as bus:
        tails = [f"client.{number:0200d}" for number in range(300)]
        for tail in tails[::7]:
            await bus.jetstream.publish(bus.subjects.inbound(tail), b"")
        latest = await History(bus).latest(tails, 0)
        assert latest is not None
        assert latest == {tail: number for number, tail in enumerate(tails[::7], 1)}
        assert bus.losses == 0
