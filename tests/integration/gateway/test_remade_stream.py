"""A stream that is deleted under a running stack: said as a gap, never as wrong or silently missing events."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.stress.proxy import fault_proxy
from tests.support.bus import broker, connected
from tests.support.feed import unadvised
from tests.support.gateway import open_stream, running_gateway
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.contract.events import Event
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end

J1 = "0123456789abcdef" * 2


async def test_open_streams_are_ended_and_told_the_gap_when_they_come_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            for number in range(5):
                await publisher.durable("client.a", Event("n", f"old {number}"), headers={})
                await stream.next("n")
            await bus.jetstream.delete_stream("TG_EVENTS")
            upkeep = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=True, all_needed=True)
            keeping = asyncio.create_task(upkeep.run(0.05))
            # Refused while there is no stream, then the first of a new life: sequence 1, below what clients have.
            for number in range(3):
                await publisher.durable("client.a", Event("n", f"new {number}"), headers={})
            last = await stream.sent_away()
            assert [event.data for event in stream.events if event.event == "n"] == [f"old {each}" for each in range(5)]
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": last}) as stream:
            gap = json.loads((await stream.next("gap")).data)
            assert (gap["reason"], gap["from"]) == ("epoch", last)
            await publisher.durable("client.a", Event("n", "last"), headers={})
            heard = [await stream.next("n") for _ in range(4)]
            assert [event.data for event in heard] == ["new 0", "new 1", "new 2", "last"]
            old_epoch = last.split("-")[0]
            assert all(event.id.split("-")[0] != old_epoch for event in heard)
            assert gap["to"].split("-")[0] == heard[0].id.split("-")[0]
            first_sequence = int(heard[0].id.split("-")[1])
            assert int(gap["to"].split("-")[1]) == first_sequence - 1, (
                "between the gap and the first event none is missing"
            )
            await end([keeping])


async def test_streams_stay_open_until_there_is_another_stream_to_come_back_to(tmp_path: Path) -> None:
    """A browser's EventSource never comes back after the 503 that it would get meanwhile."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, heartbeat_seconds=0.1) as running:
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await bus.jetstream.delete_stream("TG_EVENTS")
            await until(lambda: running.gateway.life.number == 1, "the gateway has heard of it")
            beats = stream.comments
            await until(lambda: stream.comments > beats + 10, "it is still there")
            await ensure_streams(bus, StreamLimits(), update=False)
            await stream.sent_away()


async def test_a_gateway_that_has_heard_nothing_yet_sees_the_new_life_with_its_first_event(tmp_path: Path) -> None:
    # Its clients' places came from the stream alone: no event's sequence could go back, and those of the new life that
    # were below a client's place were passed over without a word.
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        for number in range(5):
            await publisher.durable("client.a", Event("n", f"old {number}"), headers={})
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await until(lambda: all(each.held is None for each in running.gateway.hub.sessions), "it is live")
            unadvised(running)
            await bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(bus, StreamLimits(), update=False)
            await publisher.durable("client.a", Event("n", "new 0"), headers={})
            last = await stream.sent_away()
            assert not any(event.event == "n" for event in stream.events)
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": last}) as stream:
            assert json.loads((await stream.next("gap")).data)["reason"] == "epoch"
            await publisher.durable("client.a", Event("n", "new 1"), headers={})
            assert [(await stream.next()).data for _ in range(2)] == ["new 0", "new 1"]


async def test_an_event_of_the_new_life_never_goes_out_under_an_id_of_the_old_one(tmp_path: Path) -> None:
    """Its sequence was past all that the gateway knew, so it went out under an id of the old life."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        publisher = EventPublisher(bus, History(bus))
        await publisher.durable("client.a", Event("n", "old"), headers={})
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            await bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(bus, StreamLimits(), update=False)
            for number in range(5):
                await publisher.durable("client.other", Event("n", str(number)), headers={})
            new = await publisher.durable("client.a", Event("n", "new"), headers={})
            last = await stream.sent_away()
            assert [event.event for event in stream.events] == ["connected", "closing"]
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": last}) as stream:
            await stream.connected()
            assert (await stream.next()).event == "gap"
            event = await stream.next()
            assert (event.data, event.id) == ("new", new.id)


async def test_an_answer_from_before_the_new_life_is_not_its_epoch(tmp_path: Path) -> None:
    """The epoch was asked for, the stream made anew, and then the answer came: it stood for all that came later."""
    async with broker(tmp_path) as (server, bus), fault_proxy(server.port) as way:
        async with connected(f"nats://127.0.0.1:{way.port}") as slow:
            publisher, (link,) = EventPublisher(bus, History(slow)), way.links
            asked: list[bytes] = []
            bus.client.subscribe_direct("$JS.EVENT.ADVISORY.API", lambda _, __, payload: asked.append(payload))
            await bus.round_trip()
            link.pause(True)
            storing = asyncio.create_task(publisher.durable("client.a", Event("n", "old"), headers={}))
            await until(lambda: any(b"STREAM.INFO.TG_EVENTS" in each for each in asked), "it is told the epoch")
            await bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(bus, StreamLimits(), update=False)
            history = History(bus)
            for number in range(3):
                await EventPublisher(bus, history).durable("client.a", Event("n", str(number)), headers={})
            link.pause(False)
            await storing
            receipt = await publisher.durable("client.a", Event("n", "new"), headers={})
            assert receipt.id == f"{(await history.position()).epoch}-4"


async def test_a_client_that_finds_the_new_life_makes_it_known_for_all_others(tmp_path: Path) -> None:
    # The newcomer's epoch became that of the gateway: the others then looked as if they were in that life already.
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            for number in range(5):
                await publisher.durable("client.a", Event("n", f"old {number}"), headers={})
                await stream.next("n")
            await bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(bus, StreamLimits(), update=False)
            async with open_stream(running.url, {"client_id": "b"}) as newcomer:
                await newcomer.connected()
                last = await stream.sent_away()
                for number in range(3):
                    await publisher.durable("client.a", Event("n", f"new {number}"), headers={})
                async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": last}) as back:
                    assert json.loads((await back.next("gap")).data)["reason"] == "epoch"
                    assert [(await back.next()).data for _ in range(3)] == ["new 0", "new 1", "new 2"]
                await publisher.durable("client.b", Event("n", "b"), headers={})
                assert (await newcomer.next()).data == "b"
                assert [event.event for event in newcomer.events] == ["connected", "n"]


@pytest.mark.parametrize("way", ["the store is empty", "the stream is deleted"])
async def test_who_comes_late_to_the_new_life_gets_the_gap_and_then_all_of_it(tmp_path: Path, way: str) -> None:
    """NATS came back with an empty store, and events were there before a client of the old life came back.

    It was told the gap and got none of them: it was placed at the new stream's end.
    """
    query = {"client_id": "a", "topic": ["t.*", "u.x"]}
    tails = ("client.a", "topic.t.x", "topic.u.x", "broadcast", "client.b")
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(nats_server(tmp_path / "old"))
        async with connected(server.url) as bus, running_gateway(server.url) as running:
            publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
            async with open_stream(running.url, query) as there:
                await there.connected()
                old_ids = []
                for number in range(7):
                    receipt = await publisher.durable("client.a", Event("n", f"old {number}"), headers={})
                    old_ids.append(receipt.id)
                assert [(await there.next("n")).id for _ in range(7)] == old_ids
                old = old_ids[0]
                if way == "the store is empty":
                    await servers.aclose()
                    await servers.enter_async_context(nats_server(tmp_path / "new", server.port))
                    await until(lambda: bus.connected, "NATS is back")
                else:
                    await bus.jetstream.delete_stream("TG_EVENTS")
                await ensure_streams(bus, StreamLimits(), update=False)
                # More than there were: the old id names a place in the new stream too.
                due = []
                for number in range(15):
                    receipt = await publisher.durable(tails[number % 5], Event("n", f"new {number}"), headers={})
                    if number % 5 != 4:
                        due.append((receipt.id, f"new {number}"))
                await there.sent_away()
                assert [event.id for event in there.events if event.event == "n"] == old_ids
            for last_event_id in (old, f"{old.split('-')[0]}-900", f"{due[0][0].split('-')[0]}-900"):
                async with open_stream(running.url, query, {"last-event-id": last_event_id}) as late:
                    assert not (await late.connected())["resumed"]
                    gap = json.loads((await late.next()).data)
                    assert (gap["reason"], gap["from"], gap["to"]) == ("epoch", last_event_id, late.events[0].id)
                    assert [(event.id, event.data) for event in [await late.next() for _ in due]] == due


async def test_a_job_s_watcher_of_the_old_life_gets_what_the_job_has_written_in_the_new_one(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher, states, history = EventPublisher(bus, History(bus)), JobRecords(bus), History(bus)
        start = str(EventId((await history.position()).epoch, 0))
        await states.create(
            JobState(
                job_id=J1, kind="chat", status=JobStatus.RUNNING, created=1, updated=1, tail="client.a", start=start
            )
        )
        first = await publisher.durable("client.a", Event("n", "1"), headers={"Tidegate-Job": J1})
        await bus.jetstream.delete_stream("TG_EVENTS")
        await ensure_streams(bus, StreamLimits(), update=False)
        for data in ("2", "3"):
            await publisher.durable("client.a", Event("n", "another's"), headers={"Tidegate-Job": "j2"})
            await publisher.durable("client.a", Event("n", data), headers={"Tidegate-Job": J1})
        for last_event_id in (None, first.id):
            headers = {"last-event-id": last_event_id} if last_event_id else {}
            async with open_stream(running.url, headers=headers, path=f"/api/sse/jobs/{J1}") as stream:
                await stream.connected()
                if last_event_id:
                    await stream.next("gap")
                assert [(await stream.next("n")).data for _ in range(2)] == ["2", "3"]


async def test_publishing_without_the_stream_is_refused_until_it_is_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history, deadline_seconds=0.2)
        await publisher.durable("broadcast", Event("n", "1"), headers={})
        await bus.jetstream.delete_stream("TG_EVENTS")
        with pytest.raises(BrokerUnavailable):
            await publisher.durable("broadcast", Event("n", "refused"), headers={})
        await ensure_streams(bus, StreamLimits(), update=False)

        async def accepted() -> bool:
            receipt = await publisher.durable("broadcast", Event("n", "2"), headers={})
            return receipt.id.split("-")[0] == (await history.position()).epoch

        await until(accepted, "ids are of the new life")


async def test_a_server_without_jetstream_is_one_clear_line(tmp_path: Path) -> None:
    async with nats_server(tmp_path, jetstream=False) as server, connect(server.url, Subjects.of("tg"), "test") as bus:
        with pytest.raises(BrokerUnavailable, match="JetStream has to be on"):
            await ensure_streams(bus, StreamLimits(), update=True)
