"""Reading a job within the gateway: nothing is missing, nothing comes twice, whatever NATS did not bring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.feed.reader import BACKLOG_BYTES, JobReader
from gateway.hub.endings import Ending
from gateway.hub.tails import filtered
from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker, connected
from tests.support.feed import deaf, synced
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, NotFound
from tidegate_common.runtime.tasks import end

TAIL = "client.ann"
FILTERED = filtered(TAIL, "j1")


class Writer:
    """Writes events of jobs to one tail."""

    def __init__(self, bus: Bus) -> None:
        self.publisher = EventPublisher(bus, History(bus), 20)

    async def write(self, data: str, job_id: str = "j1", *, last: bool = False) -> str:
        headers = {JOB: job_id, **({JOB_END: "1"} if last else {})}
        return (await self.publisher.durable(TAIL, Event("n", data), headers=headers)).id


class Reading:
    """What reading `j1` has given so far."""

    def __init__(self, reader: JobReader) -> None:
        self.reader = reader
        self.heard: list[str] = []
        self.error: BaseException | None = None
        self.over = False
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def run(self) -> None:
        try:
            async for event_type, data in self.reader.events():
                assert event_type == "n"
                self.heard.append(data.decode())
                await self.may_read.wait()
        except (BrokerUnavailable, NotFound) as error:
            self.error = error
        self.over = True


@asynccontextmanager
async def reading(running: RunningGateway, since: str = "", **options: Any) -> AsyncIterator[Reading]:
    """`j1` is read, from the stream's present place or after `since`."""
    async with JobReader(running.gateway.attachments, TAIL, "j1", since, **options) as reader:
        await reader.attached()
        found = Reading(reader)
        task = asyncio.create_task(found.run())
        try:
            yield found
        finally:
            await end([task])


async def place(bus: Bus) -> str:
    position = await History(bus).position()
    return str(EventId(position.epoch, position.last))


async def test_a_jobs_own_events_come_in_order_from_before_and_live_until_its_last_one(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        writer, start = Writer(bus), await place(bus)
        await writer.write("1")
        await writer.write("another's", "j2")
        await writer.write("2\n\ndata: \n")
        async with reading(running, start) as found:
            await until(lambda: found.heard == ["1", "2\n\ndata: \n"], "what was stored has come")
            await writer.write("3")
            await writer.write("another's last", "j2", last=True)
            await writer.write("4", last=True)
            await writer.write("5")
            await until(lambda: found.over, "the reading ends")
            assert found.heard == ["1", "2\n\ndata: \n", "3", "4"]
            assert found.reader.ended
        assert running.gateway.hub.audiences == 0


async def test_a_reader_is_no_connection_in_the_figures_but_it_is_present(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        gateway, writer = running.gateway, Writer(bus)
        before = dict(gateway.hub.ended)
        async with reading(running) as found:
            assert len(gateway.hub.listening(FILTERED)) == 1
            assert (gateway.admission.active, gateway.admission.total) == (0, 0)
            await gateway.heartbeat.drain(0.0)
            await writer.write("1", last=True)
            await until(lambda: found.over, "a drain of connections did not end it")
            assert found.heard == ["1"]
        async with reading(running):
            pass
        assert not gateway.hub.sessions
        assert (gateway.hub.ended, gateway.admission.active, gateway.attachments.returned) == (before, 0, 0)


async def test_a_hole_is_repaired_before_anything_later(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        writer = Writer(bus)
        async with reading(running) as found:
            await writer.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            with deaf(running, FILTERED):
                await synced(running)
                await writer.write("2")
                await writer.write("another's", "j2")
                await writer.write("3")
            await synced(running)
            assert found.heard == ["1"]
            await writer.write("4")
            await writer.write("5", last=True)
            await until(lambda: found.over, "the reading ends")
            assert found.heard == ["1", "2", "3", "4", "5"]


async def test_what_nothing_follows_on_is_found_by_the_audit(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0.1) as running:
        writer = Writer(bus)
        async with reading(running) as found:
            await writer.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            with deaf(running, FILTERED):
                await synced(running)
                await writer.write("2")
            await until(lambda: found.heard == ["1", "2"], "it has been read from the stream")


async def test_a_server_that_restarts_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with nats_server(tmp_path, port) as server, connected(server.url) as bus:
        async with running_gateway(server.url) as running, reading(running) as found:
            writer = Writer(bus)
            await writer.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            await server.run.stop()
            await until(lambda: not running.bus.connected, "the connection is lost")
            async with nats_server(tmp_path, port):
                for data in ("2", "3"):
                    await writer.write(data)
                await writer.write("4", last=True)
                await until(lambda: found.over, "the reading ends", 20)
                assert found.heard == ["1", "2", "3", "4"]


async def test_a_reader_whose_session_ends_while_nats_is_away_attaches_again(tmp_path: Path) -> None:
    port = free_port()
    async with nats_server(tmp_path, port) as server, connected(server.url) as bus:
        async with running_gateway(server.url, publish_deadline_seconds=0.1) as running, reading(running) as found:
            writer, hub = Writer(bus), running.gateway.hub
            await writer.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            await server.run.stop()
            await until(lambda: not running.bus.connected, "the connection is lost")
            (first,) = hub.sessions
            hub.end(first, Ending.FEED)
            await until(lambda: list(hub.sessions) not in ([], [first]), "it tries")
            (second,) = hub.sessions
            await until(lambda: second not in hub.sessions, "it can't")
            async with nats_server(tmp_path, port):
                await writer.write("2", last=True)
                await until(lambda: found.over, "the reading ends", 20)
                assert found.heard == ["1", "2"]


async def test_what_was_written_while_the_connection_was_lost_is_read_when_it_is_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as proxy:
        async with running_gateway(f"nats://127.0.0.1:{proxy.port}") as running, reading(running) as found:
            writer = Writer(bus)
            await writer.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            proxy.refusing = True
            proxy.cut_all(Cut.RST)
            await until(lambda: not running.bus.connected, "the connection is lost")
            await writer.write("2")
            await writer.write("3", last=True)
            proxy.refusing = False
            await until(lambda: found.over, "the reading ends")
            assert found.heard == ["1", "2", "3"]


async def test_a_server_that_stays_away_is_said_after_a_while(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        async with reading(running, patience_seconds=0.3) as found:
            await Writer(bus).write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            await server.run.stop()
            await until(lambda: found.over, "the reading gives up")
            assert isinstance(found.error, BrokerUnavailable)


async def test_a_reader_that_can_not_begin_says_so_at_once(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url, publish_deadline_seconds=0.2) as running:
        await server.run.stop()
        await until(lambda: not running.bus.connected, "the connection is lost")
        async with JobReader(running.gateway.attachments, TAIL, "j1") as reader:
            with pytest.raises(BrokerUnavailable):
                await reader.attached()


async def test_a_stream_that_was_made_anew_ends_the_reading(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        async with reading(running) as found:
            await Writer(bus).write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            await bus.jetstream.delete_stream(bus.subjects.events_stream)
            await ensure_streams(bus, StreamLimits(), update=False)
            await until(lambda: found.over, "the reading ends")
            assert isinstance(found.error, NotFound)


async def test_a_job_whose_end_is_known_ends_though_its_events_are_gone(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        writer, start = Writer(bus), await place(bus)
        ends_at = EventId.parse(await writer.write("1", last=True))
        assert ends_at is not None
        await bus.jetstream.purge_stream(bus.subjects.events_stream)
        async with reading(running, start, ends_at=ends_at.sequence) as found:
            await until(lambda: found.over, "the reading ends")
            assert (found.heard, found.error) == ([], None)


async def test_a_slow_reader_is_bounded_stays_present_and_reads_the_rest_from_the_stream(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        writer, hub = Writer(bus), running.gateway.hub
        piece = "x" * 100_000
        async with reading(running) as found:
            found.may_read.clear()
            for number in range(30):
                await writer.write(f"{number} {piece}")
                await until(lambda: len(hub.listening(FILTERED)) == 1, "it is there, or again")
            await writer.write("end", last=True)
            await synced(running)
            assert found.reader._size < BACKLOG_BYTES + 2 * len(piece)
            found.may_read.set()
            await until(lambda: found.over, "the reading ends")
            assert [data.split()[0] for data in found.heard] == [*map(str, range(30)), "end"]
        assert running.gateway.hub.ended["slow"] == 0
