"""A job's own stream: its events alone, from the start, for any number of watchers, until the job has ended."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.feed.places import forget
from tests.support.bus import broker, connected
from tests.support.feed import deaf, synced, unadvised
from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.nats import NatsServer, nats_server
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.requests.gateways import ASK_SECONDS, AllGateways
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState, JobStatus

J = "0123456789abcdef0123456789abcdef"
PATH = f"/api/sse/jobs/{J}"


class Answer:
    """A job that is written by hand, as a worker does."""

    def __init__(self, bus: Bus, states: JobRecords, tail: str) -> None:
        self.publisher = EventPublisher(bus, History(bus), deadline_seconds=10)
        self.states = states
        self.tail = tail

    async def write(self, data: str, *, job_id: str = J, last: bool = False, volatile: bool = False) -> str:
        headers = {JOB: job_id, **({JOB_END: "1"} if last else {})}
        if volatile:
            await self.publisher.volatile(self.tail, Event("ai_progress", data), headers=headers)
            return ""
        return (await self.publisher.durable(self.tail, Event("ai_response", data), headers=headers)).id

    async def other(self, data: str) -> None:
        """An event on the same tail that is no job's."""
        await self.publisher.durable(self.tail, Event("note", data), headers={})

    async def ended(self, event_id: str) -> None:
        """The record says so."""

        def end(state: JobState) -> JobState:
            return JobState(**{**_fields(state), "status": JobStatus.DONE, "end": event_id})

        await self.states.change(J, end)


def _fields(state: JobState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__}


async def answer(bus: Bus, tail: str = "client.ann") -> Answer:
    states = JobRecords(bus)
    position = await History(bus).position()
    start = str(EventId(position.epoch, position.last))
    state = JobState(
        job_id=J, kind="chat", status=JobStatus.RUNNING, created=1, updated=1, tail=tail, start=start, attempt=1
    )
    await states.create(state)
    return Answer(bus, states, tail)


@asynccontextmanager
async def scene(data: Path, **settings: Any) -> AsyncIterator[tuple[NatsServer, Answer, RunningGateway]]:
    async with broker(data) as (server, bus), running_gateway(server.url, **settings) as running:
        yield server, await answer(bus), running


async def until_end(stream: Stream) -> list[str]:
    """What a stream that ends itself brings; its last event says that it is not to be opened again."""
    await until(lambda: stream.ended, "the stream ends")
    first, *found, last = stream.events
    assert first.event == "connected"
    assert (last.event, json.loads(last.data)["reason"], json.loads(last.data)["reconnect"]) == (
        "closing",
        "done",
        False,
    )
    return [event.data for event in found]


@BOTH_PATHS
async def test_a_watcher_gets_the_job_from_its_start_then_live_and_the_stream_ends_with_it(
    tmp_path: Path, streams: str
) -> None:
    async with scene(tmp_path, streams=streams) as (_, job, running):
        await job.other("before")
        await job.write("1")
        await job.other("between")
        await job.write("2")
        async with open_stream(running.url, path=PATH) as stream:
            told = await stream.connected()
            assert (told["job_id"], told["resumed"]) == (J, False)
            await job.write("3")
            await job.write("not this job's", job_id="f" * 32)
            await job.write("half", volatile=True)
            await job.other("after")
            await until(lambda: len(stream.events) == 5, "what is live")
            await job.write("4", last=True)
            assert sorted(await until_end(stream)) == ["1", "2", "3", "4", "half"]
        assert running.gateway.hub.ended["done"] == 1


async def test_a_watcher_that_comes_back_goes_on_after_its_last_event(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running):
        first = await job.write("1")
        await job.write("2")
        async with open_stream(running.url, headers={"last-event-id": first}, path=PATH) as stream:
            assert (await stream.connected())["resumed"]
            await job.write("3", last=True)
            assert await until_end(stream) == ["2", "3"]


async def test_any_number_watches_also_after_the_end_and_who_has_it_all_is_told_not_to_come_back(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as (_, job, running), AsyncExitStack() as stack:
        early = [await stack.enter_async_context(open_stream(running.url, path=PATH)) for _ in range(5)]
        await job.write("1")
        middle = [await stack.enter_async_context(open_stream(running.url, path=PATH)) for _ in range(5)]
        end = await job.write("2", last=True)
        late = [await stack.enter_async_context(open_stream(running.url, path=PATH)) for _ in range(5)]
        for stream in (*early, *middle, *late):
            assert await until_end(stream) == ["1", "2"]
        async with httpx.AsyncClient(base_url=running.url) as http:
            for _ in range(2):
                back = await http.get(PATH, headers={"last-event-id": end})
                assert (back.status_code, back.content) == (204, b"")
                assert (await http.get(PATH, params={"last_event_id": end})).status_code == 204
                await job.ended(end)  # the second time the record knows
        assert running.gateway.admission.active == 0
        assert running.gateway.hub.audiences == 0


async def test_a_watcher_with_an_id_of_another_stream_is_told_and_gets_the_whole_job(tmp_path: Path) -> None:
    """Such a watcher of a job that was over once waited for ever: it was placed after the job's end."""
    async with scene(tmp_path) as (_, job, running):
        await job.write("1")
        await job.ended(await job.write("2", last=True))
        await job.other("after")
        for strange in ("zzz-9999", "no id at all"):
            async with open_stream(running.url, headers={"last-event-id": strange}, path=PATH) as stream:
                assert not (await stream.connected())["resumed"]
                gap, *rest = await until_end(stream)
                assert json.loads(gap)["reason"] == "epoch"
                assert rest == ["1", "2"]


async def test_a_stream_of_a_job_that_is_over_ends_though_the_last_event_was_removed(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running):
        await job.write("1")
        end = await job.write("2", last=True)
        await job.ended(end)
        await job.other("after")
        await job.publisher._bus.jetstream.delete_msg("TG_EVENTS", int(end.split("-")[1]))
        async with open_stream(running.url, path=PATH) as stream:
            assert await until_end(stream) == ["1"]


async def test_unknown_jobs_and_those_whose_events_are_gone_are_not_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running), httpx.AsyncClient(base_url=running.url) as http:
        for unknown in ("f" * 32, "a b", "%00", "ö", "x" * 300, "a*"):
            found = await http.get(f"/api/sse/jobs/{unknown}")
            assert (found.status_code, found.headers["content-type"]) == (404, "application/problem+json"), unknown
        await job.ended(await job.write("1", last=True))
        assert (await http.head(PATH)).status_code == 200
        await job.publisher._bus.jetstream.purge_stream("TG_EVENTS")
        gone = await http.get(PATH)
        assert (gone.status_code, "not kept" in gone.json()["detail"]) == (404, True)


@pytest.mark.parametrize("tail", ["user.ann%40example%2Eorg", "topic.answers.1", f"job.{J}"])
async def test_jobs_of_users_and_topics_and_of_nobody_have_streams_too(tmp_path: Path, tail: str) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        job = await answer(bus, tail)
        await job.write("1")
        async with open_stream(running.url, path=PATH) as stream:
            await stream.connected()
            await job.write("2", last=True)
            assert await until_end(stream) == ["1", "2"]


async def test_what_the_feed_left_out_is_read_from_the_stream(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running):
        async with open_stream(running.url, path=PATH) as stream:
            await stream.connected()
            await job.write("1")
            await stream.next()
            with deaf(running, f"client.ann#{J}"):
                await synced(running)
                await job.write("2")
                await job.other("not this job's")
                await job.write("3")
            await synced(running)
            await job.write("4", last=True)
            assert await until_end(stream) == ["1", "2", "3", "4"]
        assert running.gateway.repairs.holes == 1


async def test_an_end_that_the_feed_left_out_is_found_by_the_audit(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running):
        async with open_stream(running.url, path=PATH) as stream:
            await stream.connected()
            await job.write("1")
            await stream.next()
            await running.gateway.audit.look()
            with deaf(running, f"client.ann#{J}"):
                await synced(running)
                await job.write("2", last=True)
            await running.gateway.audit.look()
            assert await until_end(stream) == ["1", "2"]


async def test_a_watcher_stays_while_nats_is_away_and_then_misses_nothing(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(server.url))
        running = await stack.enter_async_context(running_gateway(server.url))
        job = await answer(bus)
        stream = await stack.enter_async_context(open_stream(running.url, path=PATH))
        await stream.connected()
        await job.write("1")
        await stream.next()
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not running.bus.connected, "the gateway has lost NATS")
        async with httpx.AsyncClient(base_url=running.url) as http:
            assert (await http.get(PATH)).status_code == 503
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected, "the writer is back")
            await job.write("2")
            await job.write("3", last=True)
            assert await until_end(stream) == ["1", "2", "3"]


async def test_an_end_that_was_seen_is_not_forgotten_when_nats_goes_away_in_that_moment(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running):
        async with open_stream(running.url, path=PATH) as stream:
            await stream.connected()
            last = await job.write("1")
            await stream.next()
            ends = running.gateway.stream_ends
            ends.note(f"client.ann#{J}", int(last.split("-")[1]))
            forget(running.gateway.hub)  # as when the connection to NATS is lost
            ends.finish(next(iter(running.gateway.hub.sessions)))
            assert await until_end(stream) == ["1"]


async def test_events_that_only_a_jobs_stream_heard_show_that_the_stream_was_made_anew(tmp_path: Path) -> None:
    """An event of the new life under the number of the last one of the old was handed on as that one."""
    async with scene(tmp_path) as (_, job, running), open_stream(running.url, path=PATH) as watching:
        await watching.connected()
        bus = job.publisher._bus
        async with open_stream(running.url, {"client_id": "bob"}) as bob:
            await bob.connected()
            for number in range(4):
                await job.other(f"old {number}")
            await job.publisher.durable("client.bob", Event("n", "old"), headers={})
            await bob.next("n")
            unadvised(running)
            await bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(bus, StreamLimits(), update=False)
            for number in range(4):
                await job.other(f"new {number}")
            last = await bob.sent_away()
        async with open_stream(running.url, {"client_id": "bob"}, {"last-event-id": last}) as bob:
            assert json.loads((await bob.next("gap")).data)["reason"] == "epoch"
            await job.publisher.durable("client.bob", Event("n", "new"), headers={})
            assert (await bob.next("n")).data == "new"


async def test_a_gateway_that_stops_sends_watchers_to_another_where_they_go_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as (server, job, running), running_gateway(server.url) as other:
        async with open_stream(running.url, path=PATH) as stream:
            await stream.connected()
            first = await job.write("1")
            assert (await stream.next()).id == first
            stopping = asyncio.create_task(running.stop())
            farewell = json.loads((await stream.next("closing")).data)
            assert (farewell["reason"], farewell["reconnect"]) == ("drain", True)
            await stopping
        async with open_stream(other.url, headers={"last-event-id": first}, path=PATH) as stream:
            await stream.connected()
            await job.write("2", last=True)
            assert await until_end(stream) == ["2"]


async def test_presence_counts_who_hears_the_job_on_either_stream(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, job, running):
        asking = AllGateways(job.publisher._bus)
        async with open_stream(running.url, path=PATH), open_stream(running.url, {"client_id": "ann"}) as stream:
            await stream.connected()

            async def counted() -> bool:
                return (await asking.presence("client.ann", ASK_SECONDS, J)).total == 2

            await until(counted, "both are counted")
            assert (await asking.presence("client.ann", ASK_SECONDS)).total == 1


async def test_an_error_of_the_stream_request_names_its_field(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, running), httpx.AsyncClient(base_url=running.url) as http:
        refused = await http.get(f"{PATH}?client_id=")
        assert (refused.status_code, refused.json()["field"]) == (422, "client_id")


@pytest.mark.parametrize("last_event_id", ["x" * 300, "{epoch}-99999999999999999999"])
async def test_an_id_that_is_none_of_the_job_s_gets_a_gap(tmp_path: Path, last_event_id: str) -> None:
    """One was refused with 422, and the other, past all that a stream can have, with 503 again and again."""
    async with scene(tmp_path) as (_, _, running):
        asked = last_event_id.format(epoch=(await running.gateway.history.position()).epoch)
        async with open_stream(running.url, path=PATH, headers={"last-event-id": asked}) as stream:
            assert not (await stream.connected())["resumed"]
            assert json.loads((await stream.next("gap")).data)["from"] == asked[:64]
