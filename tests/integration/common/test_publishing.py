import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.bus import broker, connected
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import PAGE, History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams, epoch_of
from tidegate_common.bus.wire import headers
from tidegate_common.contract.events import Event
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, TooLarge


async def test_a_durable_event_gets_its_place_in_the_stream_and_comes_out_with_it(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        got: list[tuple[bytes, bytes, bytes]] = []
        bus.client.subscribe_direct("tg.out.client.a", lambda *message: got.append(message))
        history = History(bus)
        publisher = EventPublisher(bus, history)
        first = await publisher.durable("client.a", Event("note", "grüße\n2"), headers={"traceparent": "t"})
        second = await publisher.durable("client.a", Event("note", ""), headers={})
        position = await history.position()
        assert (first.id, second.id) == (f"{position.epoch}-1", f"{position.epoch}-2")
        assert (position.first, position.last) == (1, 2)
        await until(lambda: len(got) == 2, "both were republished")
        subject, block, payload = got[0]
        assert (subject, payload.decode()) == (b"tg.out.client.a", "grüße\n2")
        assert headers.field(block, headers.SEQUENCE) == b"1"
        assert headers.field(block, headers.EVENT_TYPE) == b"note"
        assert headers.field(block, headers.TRACE_PARENT) == b"t"


async def test_the_same_message_id_is_stored_once_and_answers_the_first_one_s_id(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        first = await publisher.durable("broadcast", Event("a", "1"), headers={}, message_id="key")
        again = await publisher.durable("broadcast", Event("a", "1"), headers={}, message_id="key")
        assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
        assert (await history.position()).last == 1


async def test_a_volatile_event_reaches_who_listens_and_is_not_stored(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        got: list[bytes] = []
        bus.client.subscribe_direct("tg.out.broadcast", lambda _, block, __: got.append(block))
        history = History(bus)
        await EventPublisher(bus, history).volatile("broadcast", Event("a", "1"), headers={})
        await until(lambda: got, "it came")
        assert headers.field(got[0], headers.SEQUENCE) is None
        assert headers.field(got[0], headers.VOLATILE_ID)
        assert (await history.position()).last == 0


async def test_an_event_over_the_server_s_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        publisher = EventPublisher(bus, History(bus))
        with pytest.raises(TooLarge):
            await publisher.durable("broadcast", Event("a", "x" * (1 << 20)), headers={})
        await bus.round_trip()


async def test_publishing_without_nats_is_refused_and_what_was_refused_never_comes(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history, deadline_seconds=0.3)
        await publisher.durable("broadcast", Event("a", "before"), headers={})
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not bus.connected, "the loss is noticed")
        for refused in (publisher.durable, publisher.volatile):
            with pytest.raises(BrokerUnavailable):
                await refused("broadcast", Event("a", "refused"), headers={})
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected, "NATS is back", 20)
            await publisher.durable("broadcast", Event("a", "after"), headers={})
            position = await history.position()
            kept = [stored.payload async for stored in history.after("broadcast", 0, position.last)]
            assert kept == [b"before", b"after"]


async def test_a_publish_waits_for_a_server_that_comes_back_within_the_deadline(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not bus.connected, "the loss is noticed")
        sending = asyncio.create_task(publisher.durable("broadcast", Event("a", "1"), headers={}))
        async with nats_server(tmp_path, server.port):
            assert (await sending).id.endswith("-1")


async def test_history_is_read_page_by_page_in_order_up_to_a_position(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        total = PAGE * 2 + 5
        await asyncio.gather(
            *(publisher.durable(f"topic.a.{n % 2}", Event("t", str(n)), headers={}) for n in range(total))
        )
        last = (await history.position()).last
        whole = [stored.sequence async for stored in history.after("topic.a.*", 0, last)]
        assert whole == list(range(1, total + 1))
        half = [stored async for stored in history.after("topic.a.1", 10, last - 100)]
        assert all(10 < stored.sequence <= last - 100 and stored.tail == "topic.a.1" for stored in half)
        assert len(half) == sum(1 for n in range(total) if n % 2 and 10 < n + 1 <= last - 100)
        assert [stored async for stored in history.after("client.nobody", 0, last)] == []


async def test_positions_asked_for_together_are_never_of_before_the_asking(
    tmp_path: Path,
) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        for number in range(1, 30):
            earlier = asyncio.create_task(history.position())
            await asyncio.sleep(0)
            await publisher.durable("broadcast", Event("a", "1"), headers={})
            positions = await asyncio.gather(*(history.position() for _ in range(20)))
            assert {position.last for position in positions} == {number}
            await earlier


async def test_a_stream_that_was_made_again_has_another_epoch(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        before = await history.position()
        assert (await history.position()).epoch == before.epoch
        await bus.jetstream.delete_stream("TG_EVENTS")
        with pytest.raises(BrokerUnavailable):
            await history.position()
        await ensure_streams(bus, StreamLimits(), update=True)
        assert (await history.position()).epoch != before.epoch
    assert epoch_of("A", "t") != epoch_of("B", "t")


async def test_new_limits_reach_an_existing_stream_and_lose_nothing(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        history = History(bus)
        await EventPublisher(bus, history).durable("broadcast", Event("a", "1"), headers={})
        async with connected(server.url, StreamLimits(max_per_subject=7, max_age_seconds=600)) as again:
            config = (await again.jetstream.stream_info("TG_EVENTS")).config
            assert (config.max_msgs_per_subject, config.max_age) == (7, 600)
        assert (await history.position()).last == 1


async def test_connecting_to_nothing_names_the_address_without_its_password_and_the_variable() -> None:
    url = "nats://user:secret@127.0.0.1:1"
    with pytest.raises(BrokerUnavailable) as caught:
        async with asyncio.timeout(9), connect(url, Subjects.of("tg"), "test", connect_seconds=0.5):
            pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "TIDEGATE_NATS_URL" in str(caught.value)
    assert "secret" not in str(caught.value)
