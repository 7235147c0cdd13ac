"""A backup of the event stream is put back: ids hold up to its end, those past it get a gap, and none comes twice."""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.feed.reader import JobReader
from tests.stress.proxy import fault_proxy
from tests.support.backups import Backup, backup, restore
from tests.support.bus import broker, connected
from tests.support.cluster import made, nats_cluster
from tests.support.gateway import Stream, open_stream, running_gateway
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams, epoch_of
from tidegate_common.bus.streams.lineage import Lineage
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.contract.events import Event
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end, spawn

RIGHTS = """
authorization { users: [ { user: a, password: b, permissions: {
  subscribe: { deny: "$JS.EVENT.>" }, publish: { deny: "$JS.API.STREAM.UPDATE.>" } } } ] }
"""


async def _publish(bus: Bus, *data: str, tail: str = "client.a") -> list[str]:
    publisher = EventPublisher(bus, History(bus))
    return [(await publisher.durable(tail, Event("n", each), headers={})).id for each in data]


async def _note(bus: Bus, restored: str = "") -> None:
    await Lineage(bus, History(bus), restored).look()


async def _heard(stream: Stream, count: int) -> list[str]:
    return [(await stream.next("n")).data for _ in range(count)]


def _places(position: Position, *ids: str) -> list[int | None]:
    return [position.place(event_id) for each in ids if (event_id := EventId.parse(each)) is not None]


async def _another_epoch(history: History, epoch: str) -> bool:
    try:
        return (await history.position()).epoch != epoch
    except BrokerUnavailable:
        return False


def _last(event_id: str) -> dict[str, str]:
    return {"last-event-id": event_id}


async def _put_back(bus: Bus, saved: Backup) -> None:
    await bus.jetstream.delete_stream("TG_EVENTS")
    await restore(bus, saved)


@pytest.mark.parametrize("noted", ["noted at once", "noted later"])
async def test_an_id_up_to_the_restored_place_resumes_and_one_past_it_gets_the_gap(tmp_path: Path, noted: str) -> None:
    """Every id of before got a gap: the epoch came from the stream's creation time, which a restore sets anew."""
    async with broker(tmp_path) as (server, bus):
        await _note(bus)
        first = await _publish(bus, "1", "2", "3", "4")
        saved = await backup(bus, "TG_EVENTS")
        lost = await _publish(bus, "lost 5", "lost 6", "lost 7")
        await _put_back(bus, saved)
        if noted == "noted at once":
            await _note(bus)
        new = await _publish(bus, "new 5", "new 6", "new 7", "new 8")
        if noted == "noted later":
            await _note(bus)
        assert not set(new) & {*first, *lost}, "no id is given twice"
        async with running_gateway(server.url) as running:
            for count, event_id in enumerate(first, 1):
                async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": event_id}) as stream:
                    assert (await stream.connected())["resumed"]
                    due = ["1", "2", "3", "4", "new 5", "new 6", "new 7", "new 8"][count:]
                    assert [(await stream.next()).data for _ in due] == due
                    assert stream.events[-1].id == new[-1]
            for event_id in lost:
                async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": event_id}) as stream:
                    assert not (await stream.connected())["resumed"]
                    gap = json.loads((await stream.next()).data)
                    assert (gap["reason"], gap["from"]) == ("epoch", event_id)
                    assert gap["to"] == str(EventId(new[0].split("-")[0], 4))
                    assert await _heard(stream, 4) == ["new 5", "new 6", "new 7", "new 8"]


async def test_who_comes_back_after_a_restore_goes_on_and_only_who_had_more_is_told(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        await _note(bus)
        async with (
            open_stream(running.url, {"client_id": "a", "topic": "t.*"}) as a,
            open_stream(running.url, {"client_id": "b"}) as b,
        ):
            await a.connected()
            await b.connected()
            await _publish(bus, "1", "2", tail="client.a")
            await _publish(bus, "1", "2", tail="client.b")
            saved = await backup(bus, "TG_EVENTS")
            lost = await _publish(bus, "lost", tail="client.b")
            assert await _heard(a, 2) == ["1", "2"]
            assert await _heard(b, 3) == ["1", "2", "lost"]
            await _put_back(bus, saved)
            new = [*await _publish(bus, "3", tail="client.b"), *await _publish(bus, "3", tail="topic.t.x")]
            await _note(bus)
            last_ids = {"a": await a.sent_away(), "b": await b.sent_away()}
            assert last_ids["b"] == lost[0]
            assert not set(new) & {event.id for event in (*a.events, *b.events)}
        async with open_stream(running.url, {"client_id": "a", "topic": "t.*"}, _last(last_ids["a"])) as a:
            assert (await a.connected())["resumed"]
            event = await a.next()
            assert (event.data, event.id) == ("3", new[1])
        async with open_stream(running.url, {"client_id": "b"}, _last(last_ids["b"])) as b:
            await b.connected()
            assert json.loads((await b.next()).data)["from"] == lost[0]
            event = await b.next()
            assert (event.data, event.id) == ("3", new[0])


async def test_a_stream_of_a_release_without_notes_keeps_its_epoch(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        (before,) = await _publish(bus, "1")
        info = await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")
        created = json.loads(info.data)["created"]
        assert before == f"{epoch_of('TG_EVENTS', created)}-1"
        await _note(bus)
        assert await _publish(bus, "2") == [f"{before.split('-')[0]}-2"]
        await ensure_streams(bus, StreamLimits(max_per_subject=7), update=True)
        told = json.loads((await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")).data)["config"]
        assert (told["max_msgs_per_subject"], told["metadata"]["tidegate-epoch"]) == (7, before.split("-")[0])


async def test_a_second_restore_keeps_the_ids_of_both_lives_before_it(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        await _note(bus)
        ids, saved = await _publish(bus, "1", "2", "3"), await backup(bus, "TG_EVENTS")
        gone = await _publish(bus, "4")
        await _put_back(bus, saved)
        await _note(bus)
        second, saved = await _publish(bus, "4b", "5b"), await backup(bus, "TG_EVENTS")
        gone += await _publish(bus, "6b")
        await _put_back(bus, saved)
        await _note(bus)
        third = await _publish(bus, "6c")
        position = await History(bus).position()
        assert _places(position, *ids, *second, *third) == [1, 2, 3, 4, 5, 6]
        assert _places(position, *gone) == [None, None]


async def test_a_job_that_is_being_read_goes_on_over_a_restore(tmp_path: Path) -> None:
    headers = {"Tidegate-Job": "j1"}
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        await _note(bus)
        history, publisher = History(bus), EventPublisher(bus, History(bus))
        start = str(EventId((await history.position()).epoch, 0))
        async with JobReader(running.gateway.attachments, "client.a", "j1", start) as reader:
            events = reader.events()
            await publisher.durable("client.a", Event("n", "1"), headers=headers)
            assert await anext(events) == ("n", b"1")
            saved = await backup(bus, "TG_EVENTS")
            await _put_back(bus, saved)
            await publisher.durable("client.a", Event("n", "2"), headers={**headers, "Tidegate-Job-End": "1"})
            assert [data async for _, data in events] == [b"2"]
        assert (await read_answer(history, "j1", "client.a", start)).whole


@pytest.mark.parametrize("who", ["the operator says it", "publisher-api has seen what is missing"])
async def test_a_copy_of_the_store_that_is_put_back_is_another_life(tmp_path: Path, who: str) -> None:
    """The stream looks as it did, its creation time too: events got ids that others had had before."""
    store, copy = tmp_path / "store", tmp_path / "copy"
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(nats_server(store))
        async with connected(server.url) as bus:
            history = History(bus)
            running = Lineage(bus, history)
            await running.look()
            before = (await history.position()).epoch
            first = await _publish(bus, "1", "2", "3", "4")
            await servers.aclose()
            shutil.copytree(store, copy)
            await servers.enter_async_context(nats_server(store, server.port))
            await until(lambda: bus.connected, "NATS is back")
            lost = await _publish(bus, "5", "6", "7")
            await running.look()
            await servers.aclose()
            await until(lambda: not bus.connected, "it is noticed that NATS is away")
            shutil.rmtree(store)
            shutil.copytree(copy, store)
            await servers.enter_async_context(nats_server(store, server.port))
            await until(lambda: bus.connected, "NATS is back")
            if who == "the operator says it":
                await _note(bus, "put back on Monday")
                await _note(bus, "put back on Monday")
            else:
                looking = spawn(running.run(every_seconds=60), "looking")
                await until(lambda: _another_epoch(history, before), "the new life is noted")
                await end([looking])
            new = await _publish(bus, "new 5", "new 6", "new 7", "new 8")
            if who == "the operator says it":
                await _note(bus, "put back on Monday")
            assert not set(new) & {*first, *lost}
            assert len({event_id.split("-")[0] for event_id in new}) == 1
            position = await history.position()
            assert _places(position, *first, *lost, *new) == [1, 2, 3, 4, None, None, None, 5, 6, 7, 8]


@pytest.mark.parametrize("twice", ["with fewer events than were seen", "with as many as were seen"])
async def test_a_copy_that_is_put_back_twice_is_another_life_each_time(tmp_path: Path, twice: str) -> None:
    """The second time the copy has no note of the first, so what was missing was held against another life's place.

    Its first life went on, and ids were given for the third time.
    """
    store, copy = tmp_path / "store", tmp_path / "copy"
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(nats_server(store))
        async with connected(server.url) as bus:
            running = Lineage(bus, History(bus))
            await running.look()
            first = await _publish(bus, "1", "2", "3", "4")
            await servers.aclose()
            shutil.copytree(store, copy)
            await servers.enter_async_context(nats_server(store, server.port))
            await until(lambda: bus.connected, "NATS is back")
            given = [*first, *await _publish(bus, "5", "6")]
            await running.look()
            for number in range(2):
                await servers.aclose()
                await until(lambda: not bus.connected, "it is noticed that NATS is away")
                shutil.rmtree(store)
                shutil.copytree(copy, store)
                await servers.enter_async_context(nats_server(store, server.port))
                await until(lambda: bus.connected, "NATS is back")
                await running.look()
                new = await _publish(bus, f"new 5 of {number}", f"new 6 of {number}")
                assert not set(new) & set(given), "no id is given twice"
                given += new
                if twice == "with fewer events than were seen":
                    await running.look()
            assert _places(await History(bus).position(), *given) == [1, 2, 3, 4, None, None, None, None, 5, 6]


async def _without_notes(bus: Bus) -> None:
    """What a publisher-api of a release without notes does at its start: it writes its own configuration."""
    config = json.loads((await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")).data)["config"]
    del config["metadata"]
    answer = await bus.client.request("$JS.API.STREAM.UPDATE.TG_EVENTS", json.dumps(config).encode())
    assert not json.loads(answer.data)["config"].get("metadata", {}).get("tidegate-epoch")


@pytest.mark.parametrize("how", ["a copy that was told of", "by the api"])
async def test_notes_that_another_process_has_undone_are_made_again_at_once(tmp_path: Path, how: str) -> None:
    """The life of before went on, whose later ids others had; or ids of before the restore got a gap."""
    async with broker(tmp_path) as (_, bus):
        await _note(bus)
        ids = await _publish(bus, "1", "2")
        if how == "by the api":
            await _put_back(bus, await backup(bus, "TG_EVENTS"))
        running, history = Lineage(bus, History(bus), "" if how == "by the api" else "monday"), History(bus)
        await running.start()
        ids += await _publish(bus, "3")
        looking = spawn(running.run(every_seconds=60), "looking")
        await _without_notes(bus)

        async def noted() -> bool:
            config = json.loads((await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")).data)["config"]
            return "tidegate-epoch" in config.get("metadata", {})

        await until(noted, "they are made again")
        ids += await _publish(bus, "4")
        assert len(set(ids)) == 4
        third = 3 if how == "by the api" else None  # its life is not known any more: a gap, and no other event
        assert _places(await history.position(), *ids) == [1, 2, third, 4]
        await end([looking])


async def test_a_restore_that_can_t_be_noted_is_no_start(tmp_path: Path) -> None:
    """It was said at WARNING, and ids were given again until a later look."""
    async with nats_server(tmp_path, config=RIGHTS) as server:
        async with connect(server.url.replace("//", "//a:b@"), Subjects.of("tg"), "test") as bus:
            await ensure_streams(bus, StreamLimits(), update=False)
            with pytest.raises(BrokerUnavailable, match="TIDEGATE_EVENTS_RESTORED"):
                await Lineage(bus, History(bus), "monday").start(seconds=0.5)


async def test_two_processes_that_find_a_restore_at_the_same_moment_find_the_same_life(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), connected(server.url) as other:
        await _note(bus)
        ids = await _publish(bus, "1", "2")
        for number in range(8):
            saved = await backup(bus, "TG_EVENTS")
            lost = await _publish(bus, "lost")
            await _put_back(bus, saved)
            both = [Lineage(each, History(each), word) for each in (bus, other) for word in ("", f"monday {number}")]
            await asyncio.gather(*(each.start() for each in both[number % 2 :: 2]))
            (new,) = await _publish(other, "new")
            assert {(await History(each).position()).epoch for each in (bus, other)} == {new.split("-")[0]}
            position = await History(bus).position()
            assert _places(position, *ids, *lost, new) == [*range(1, len(ids) + 1), None, len(ids) + 1]
            ids.append(new)


async def test_two_words_of_the_operator_s_begin_a_life_each_and_no_more(tmp_path: Path) -> None:
    """While all are restarted with a new word, some have the one before it: each began a life against the other's."""
    async with broker(tmp_path) as (_, bus):
        await _note(bus)
        await _publish(bus, "1")
        history = History(bus)
        before, after = Lineage(bus, history, "monday"), Lineage(bus, history, "friday")
        await before.start()
        await after.start()
        epoch = (await history.position()).epoch
        for each in (before, after, before):
            await each.look()
            assert (await history.position()).epoch == epoch
        await bus.jetstream.delete_stream("TG_EVENTS")
        await ensure_streams(bus, StreamLimits(), update=False)
        await after.look()
        (new,) = await _publish(bus, "1")
        await Lineage(bus, History(bus), "friday").start()
        assert (await history.position()).epoch == new.split("-")[0], "it has been told of in the stream before"


async def test_notes_and_changes_of_the_stream_undo_each_other_at_no_moment(tmp_path: Path) -> None:
    """Both read the stream's configuration and write the whole of it back: the later one wrote the older notes."""
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        await _note(bus)
        for number in range(24):
            upkeep = Upkeep(bus, StreamLimits(), history.leaders, keeps=True, all_needed=True)
            config = json.loads((await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")).data)["config"]
            ask = json.dumps({**config, "allow_direct": False, "allow_msg_ttl": True}).encode()
            assert "error" not in json.loads((await bus.client.request("$JS.API.STREAM.UPDATE.TG_EVENTS", ask)).data)
            await _publish(bus, str(number))
            noting = Lineage(bus, history, f"restore {number}")
            looking = spawn(upkeep.look(), "looking")
            for _ in range(number % 8):
                await bus.round_trip()
            await noting.start()
            await looking
            told = json.loads((await bus.client.request("$JS.API.STREAM.INFO.TG_EVENTS", b"")).data)["config"]
            assert told["metadata"]["tidegate-restored"] == f"restore {number}"
            assert told["allow_direct"]


async def test_without_the_right_to_hear_of_deletions_and_to_note_all_else_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path, config=RIGHTS) as server:
        url = server.url.replace("//", "//a:b@")
        async with connect(url, Subjects.of("tg"), "test") as bus:
            await ensure_streams(bus, StreamLimits(), update=False)
            lineage = Lineage(bus, History(bus))
            for _ in range(2):
                await lineage.start()
            assert caplog.text.count("can't be noted in its metadata") == 1
            async with running_gateway(url) as running, open_stream(running.url, {"client_id": "a"}) as stream:
                await stream.connected()
                (event_id,) = await _publish(bus, "1")
                assert (await stream.next("n")).id == event_id
                await running.bus.round_trip()
                await bus.round_trip()


async def test_a_new_life_that_is_noted_under_running_services_is_every_ones(tmp_path: Path) -> None:
    """A publisher went on with the epoch that it knew, gateways with another: an event had two ids."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0) as running:
        await _note(bus)
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            before = (await publisher.durable("client.a", Event("n", "1"), headers={})).id
            assert (await stream.next("n")).id == before
            await _note(bus, "put back on Monday")
            await bus.round_trip()
            after = (await publisher.durable("client.a", Event("n", "2"), headers={})).id
            assert after.split("-")[0] != before.split("-")[0]
            assert await stream.sent_away() == before
        async with open_stream(running.url, {"client_id": "a"}, _last(before)) as stream:
            assert (await stream.connected())["resumed"]
            assert (await stream.next()).id == after


async def test_a_new_life_is_heard_of_while_the_stream_is_being_asked_for_its_place(tmp_path: Path) -> None:
    """News that came with the answer to an earlier question went by: events came under ids of the life before."""
    async with (
        broker(tmp_path) as (server, bus),
        fault_proxy(server.port) as way,
        running_gateway(f"nats://127.0.0.1:{way.port}", audit_seconds=0) as running,
    ):
        await _note(bus)
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            asked: list[bytes] = []
            bus.client.subscribe_direct("$JS.EVENT.ADVISORY.API", lambda _, __, payload: asked.append(payload))
            await bus.round_trip()
            (link,) = way.links
            link.pause(True)
            running.gateway.life.doubt()
            await until(lambda: any(b"STREAM.INFO.TG_EVENTS" in each for each in asked), "its place was told")
            await _note(bus, "put back on Monday")
            await bus.round_trip()
            link.pause(False)
            epoch = (await History(bus).position()).epoch
            await until(lambda: running.gateway.life.epoch == epoch, "the gateway has the new epoch")


async def test_a_restart_of_nats_is_no_other_life(tmp_path: Path) -> None:
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(nats_server(tmp_path))
        async with connected(server.url) as bus:
            running = Lineage(bus, History(bus))
            await running.look()
            (before,) = await _publish(bus, "1")
            await running.look()
            await servers.aclose()
            await servers.enter_async_context(nats_server(tmp_path, server.port))
            await until(lambda: bus.connected, "NATS is back")
            await running.look()
            assert await _publish(bus, "2") == [f"{before.split('-')[0]}-2"]


async def test_in_a_cluster_a_restored_stream_goes_on_too(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as cluster, connect(cluster.url, Subjects.of("tg"), "test") as bus:
        await made(bus)
        await _note(bus)
        first, saved = await _publish(bus, "1", "2"), await backup(bus, "TG_EVENTS")
        (lost,) = await _publish(bus, "lost")
        await _put_back(bus, saved)
        await _note(bus)
        new = await _publish(bus, "3", "4")
        async with running_gateway(cluster.url) as running:
            async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": first[0]}) as stream:
                assert (await stream.connected())["resumed"]
                assert await _heard(stream, 3) == ["2", "3", "4"]
            async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": lost}) as stream:
                await stream.connected()
                assert json.loads((await stream.next()).data)["to"] == f"{new[0].split('-')[0]}-2"
                assert await _heard(stream, 2) == ["3", "4"]
