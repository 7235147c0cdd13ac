"""Following a job: nothing is missing, nothing comes twice, whatever NATS did not bring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from nats.protocol import command

from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker, connected
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.following import Following
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, NotFound
from tidegate_common.runtime.tasks import end

TAIL = "client.ann"


class Writing:
    """Writes events of jobs to one tail."""

    def __init__(self, bus: Bus) -> None:
        self.publisher = EventPublisher(bus, History(bus), 20)

    async def write(self, data: str, job_id: str = "j1", *, last: bool = False) -> None:
        headers = {JOB: job_id, **({JOB_END: "1"} if last else {})}
        await self.publisher.durable(TAIL, Event("n", data), headers=headers)


class Reading:
    """What following `j1` has given so far."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.error: BaseException | None = None
        self.over = False


@asynccontextmanager
async def reading(
    bus: Bus, look_seconds: float = 60, start: EventId | None = None, patience_seconds: float = 60
) -> AsyncIterator[Reading]:
    """`j1` is followed on `bus`, from the stream's present place or from `start`."""
    history = History(bus)
    if start is None:
        position = await history.position()
        start = EventId(position.epoch, position.last)
    found = Reading()

    async def read() -> None:
        following = Following(bus, history, look_seconds)
        with following.follow("j1", TAIL, start, patience_seconds=patience_seconds) as events:
            try:
                async for stored in events:
                    found.heard.append(stored.payload.decode())
            except (BrokerUnavailable, NotFound) as error:
                found.error = error
        found.over = True

    task = asyncio.create_task(read())
    await history.position()  # the subscription is in force
    try:
        yield found
    finally:
        await end([task])


@contextmanager
def deaf(bus: Bus) -> Iterator[None]:
    """The server brings nothing of the tail and the client does not know it, as when a route loses messages."""
    subject = bus.subjects.outbound(TAIL)
    sid = next(sid for sid, each in bus.client._subs.items() if getattr(each, "_subject", "") == subject)
    bus.client._enqueue(command.unsub_cmd(sid, 0))
    yield
    bus.client._enqueue(command.sub_cmd(subject, "", sid))


async def test_a_jobs_own_events_come_in_order_from_before_and_live_until_its_last_one(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), connected(server.url) as mine:
        writing, position = Writing(bus), await History(bus).position()
        await writing.write("1")
        await writing.write("another's", "j2")
        await writing.write("2")
        async with reading(mine, start=EventId(position.epoch, position.last)) as found:
            await until(lambda: found.heard == ["1", "2"], "what was stored has come")
            await writing.write("3")
            await writing.write("another's last", "j2", last=True)
            await writing.write("4", last=True)
            await writing.write("5")
            await until(lambda: found.over, "the following ends")
            assert found.heard == ["1", "2", "3", "4"]
        subjects = [getattr(each, "_subject", "") for each in mine.client._subs.values()]
        assert mine.subjects.outbound(TAIL) not in subjects


async def test_a_hole_is_mended_before_anything_later(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), connected(server.url) as mine:
        writing = Writing(bus)
        async with reading(mine) as found:
            await writing.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            with deaf(mine):
                await mine.round_trip()
                await writing.write("2")
                await writing.write("another's", "j2")
                await writing.write("3")
            await mine.round_trip()
            assert found.heard == ["1"]
            await writing.write("4")
            await writing.write("5", last=True)
            await until(lambda: found.over, "the following ends")
            assert found.heard == ["1", "2", "3", "4", "5"]


async def test_what_nothing_follows_on_is_found_by_a_look_at_the_stream(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), connected(server.url) as mine:
        writing = Writing(bus)
        async with reading(mine, look_seconds=0.2) as found:
            await writing.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            with deaf(mine):
                await mine.round_trip()
                await writing.write("2", last=True)
                await until(lambda: found.over, "the following ends")
            assert found.heard == ["1", "2"]


async def test_a_server_that_restarts_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with nats_server(tmp_path, port) as server, connected(server.url) as bus, connected(server.url) as mine:
        writing = Writing(bus)
        async with reading(mine) as found:
            await writing.write("1")
            await until(lambda: found.heard == ["1"], "the first has come")
            await server.run.stop()
            await until(lambda: not mine.connected, "the connection is lost")
            async with nats_server(tmp_path, port):
                for data in ("2", "3"):
                    await writing.write(data)
                await writing.write("4", last=True)
                await until(lambda: found.over, "the following ends", 20)
                assert found.heard == ["1", "2", "3", "4"]
                await mine.client.close()
                await bus.client.close()


async def test_what_was_written_while_the_connection_was_lost_is_read_when_it_is_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as proxy:
        async with connected(f"nats://127.0.0.1:{proxy.port}") as mine:
            writing = Writing(bus)
            async with reading(mine) as found:
                await writing.write("1")
                await until(lambda: found.heard == ["1"], "the first has come")
                proxy.refusing = True
                proxy.cut_all(Cut.RST)
                await until(lambda: not mine.connected, "the connection is lost")
                await writing.write("2")
                await writing.write("3", last=True)
                proxy.refusing = False
                await until(lambda: found.over, "the following ends")
                assert found.heard == ["1", "2", "3"]


async def test_a_server_that_stays_away_is_said_after_a_while(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, connected(server.url) as mine:
        async with reading(mine, patience_seconds=0.3) as found:
            await server.run.stop()
            await until(lambda: found.over, "the following gives up")
            assert isinstance(found.error, BrokerUnavailable)
        await mine.client.close()


async def test_a_stream_that_was_made_anew_ends_the_following(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), connected(server.url) as mine:
        async with reading(mine, look_seconds=0.2) as found:
            await bus.jetstream.delete_stream(bus.subjects.events_stream)
            await ensure_streams(bus, StreamLimits(), update=False)
            await until(lambda: found.over, "the following ends")
            assert isinstance(found.error, NotFound)


async def test_a_reader_that_is_too_slow_reads_the_rest_from_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_common.bus.jobs.following.BACKLOG_BYTES", 2000)
    async with broker(tmp_path) as (server, bus), connected(server.url) as mine:
        writing, history = Writing(bus), History(mine)
        position = await history.position()
        start = EventId(position.epoch, position.last)
        rest = "x" * 3000  # it does not fit, and nothing follows that would show a hole
        with Following(mine, history, 60).follow("j1", TAIL, start, stored=False) as events:
            for number in range(3):
                await writing.write(str(number))
            await writing.write(rest, last=True)
            await mine.round_trip()
            heard = [stored.payload.decode() async for stored in events]
        assert heard == ["0", "1", "2", rest]
