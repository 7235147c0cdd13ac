"""Many events at once: each confirmed only when it is stored, stored once, and in their order."""

import asyncio
import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from tests.stress.proxy import Cut, Link, fault_proxy
from tests.support.bus import SUBJECTS, broker, connected
from tests.support.nats import nats_server
from tests.support.processes import paused
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.events.refusals import Refusals
from tidegate_common.bus.events.writer import Message, PubAck, StreamWriter
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.patience import Patience
from tidegate_common.bus.wire import headers
from tidegate_common.contract.events import Event, Receipt
from tidegate_common.errors import BrokerUnavailable, TooLarge

MANY = 500


def events(count: int = MANY) -> list[Durable]:
    return [Durable("broadcast", Event("n", str(number))) for number in range(count)]


async def payloads(bus: Bus) -> list[bytes]:
    history = History(bus)
    position = await history.position()
    return [stored.payload async for stored in history.after("broadcast", 0, position.last)]


async def ids(bus: Bus, sequences: range) -> list[Receipt]:
    epoch = (await History(bus).position()).epoch
    return [Receipt(f"{epoch}-{sequence}") for sequence in sequences]


async def test_all_are_stored_in_their_order_and_one_that_is_refused_stops_no_other(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        given = [*events(3), Durable("broadcast", Event("n", "x" * (1 << 20))), Durable("broadcast", Event("n", "3"))]
        found = await EventPublisher(bus, History(bus)).durable_all(given, headers={})
        assert isinstance(found[3], TooLarge)
        assert [each for each in found if isinstance(each, Receipt)] == await ids(bus, range(1, 5))
        assert await payloads(bus) == [b"0", b"1", b"2", b"3"]


async def test_only_what_the_caller_sends_again_is_a_duplicate(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        publisher = EventPublisher(bus, History(bus))
        given = [Durable("broadcast", Event("n", str(number)), f"key {number}") for number in range(3)]
        first = await publisher.durable_all(given[:2], headers={})
        again = await publisher.durable_all([*given, Durable("broadcast", Event("n", "new"))], headers={})
        assert [each.duplicate for each in again if isinstance(each, Receipt)] == [True, True, False, False]
        assert [each.id for each in again[:2] if isinstance(each, Receipt)] == [
            each.id for each in first if isinstance(each, Receipt)
        ]
        assert await payloads(bus) == [b"0", b"1", b"2", b"new"]


def cut_midway(link: Link) -> None:
    link.midway = 0.5  # half of the next piece of confirmations still comes
    link.pause(False)


@pytest.mark.parametrize("cut", [lambda link: link.end(Cut.RST), cut_midway], ids=["all", "half"])
async def test_when_confirmations_are_lost_all_is_confirmed_all_the_same_and_stored_once(
    tmp_path: Path, cut: Callable[[Link], None]
) -> None:
    async with broker(tmp_path) as (server, watching), fault_proxy(server.port) as way:
        async with connected(f"nats://127.0.0.1:{way.port}") as bus:
            (link,) = way.links
            link.pause(True)
            publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
            sending = asyncio.create_task(publisher.durable_all(events(), headers={}))

            async def stored() -> bool:
                return (await History(watching).position()).last == MANY

            await until(stored, "all are stored, and none is confirmed")
            assert not sending.done()
            cut(link)
            assert await sending == await ids(watching, range(1, MANY + 1))
        assert await payloads(watching) == [b"%d" % number for number in range(MANY)]


async def test_nats_killed_under_way_leaves_nothing_confirmed_unstored_nothing_twice_and_the_order(
    tmp_path: Path,
) -> None:
    async with broker(tmp_path) as (server, bus):
        got: list[bytes] = []
        bus.client.subscribe_direct("tg.out.broadcast", lambda _, __, payload: got.append(payload))
        publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
        sending = asyncio.create_task(publisher.durable_all(events(20_000), headers={}))
        await until(lambda: got, "some are stored")
        assert not sending.done()
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not bus.connected, "the loss is noticed")
        async with nats_server(tmp_path, server.port):
            assert await sending == await ids(bus, range(1, 20_001))
            assert await payloads(bus) == [b"%d" % number for number in range(20_000)]


async def test_without_nats_all_are_refused_by_one_deadline_and_none_comes_later(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus):
        publisher = EventPublisher(bus, History(bus), deadline_seconds=0.3)
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not bus.connected, "the loss is noticed")
        async with asyncio.timeout(10):
            found = await publisher.durable_all(events(), headers={})
        assert [type(each) for each in found] == [BrokerUnavailable] * MANY
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected, "NATS is back", 20)
            await publisher.durable("broadcast", Event("n", "after"), headers={})
            assert await payloads(bus) == [b"after"]


async def test_what_was_refused_while_nats_hung_is_not_sent_by_the_next_connection(tmp_path: Path) -> None:
    """It waited in the client's own buffer, behind what the sockets' buffers could not take."""
    async with broker(tmp_path) as (server, bus):
        publisher = EventPublisher(bus, History(bus), deadline_seconds=0.3)
        await server.pause()
        large = [Durable("topic.large", Event("n", "x" * 500_000))] * 40
        sending = [asyncio.create_task(publisher.durable_all(large, headers={}))]
        transport: Any = bus.client._transport
        socket = transport._io_writer.transport
        await until(lambda: socket.get_write_buffer_size() > 0, "the socket takes no more, and the client waits")
        sending.append(asyncio.create_task(publisher.durable_all(events(), headers={})))
        await until(lambda: bus.client.pending_data_size > 0, "this has to wait")
        await server.run.stop(signal.SIGKILL)
        for found in await asyncio.gather(*sending):
            assert {type(each) for each in found} == {BrokerUnavailable}
        async with nats_server(tmp_path, server.port):
            await until(lambda: bus.connected, "NATS is back", 20)
            await publisher.durable("broadcast", Event("n", "after"), headers={})
            assert await payloads(bus) == [b"after"]


async def test_each_event_s_id_is_of_the_stream_that_it_is_in(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        publisher = EventPublisher(bus, History(bus), deadline_seconds=20)
        for _ in range(2):
            assert await publisher.durable_all(events(10), headers={}) == await ids(bus, range(1, 11))
            await bus.jetstream.delete_stream("TG_EVENTS")
            await ensure_streams(bus, StreamLimits(), update=True)


@pytest.mark.parametrize("deadline", [0.3, 2.3])
async def test_while_nats_hangs_the_deadline_is_kept_in_the_first_try_and_in_those_after_it(
    tmp_path: Path, deadline: float
) -> None:
    """The first try took its two seconds in any case, and the last one began before the deadline and ended after it."""
    loop = asyncio.get_running_loop()
    async with broker(tmp_path) as (server, bus):
        patience = Patience(deadline_seconds=deadline, attempt_seconds=2)
        publisher = EventPublisher(bus, History(bus), leaders=Leaders(bus, patience))
        async with paused(server.run):
            began = loop.time()
            with pytest.raises(BrokerUnavailable, match="may be stored"):
                await publisher.durable("broadcast", Event("n", "1"), headers={})
            assert deadline - 0.05 <= loop.time() - began < deadline + 1.5
        await bus.round_trip()


async def test_an_event_that_nats_confirms_without_saying_in_which_stream_is_late_at_the_deadline_too(
    tmp_path: Path,
) -> None:
    """The question for the stream's epoch had five seconds of its own after the deadline."""
    async with nats_server(tmp_path, jetstream=False) as server, connect(server.url, SUBJECTS, "test") as bus:
        await stream(bus, lambda message: True)
        await bus.client.subscribe("$JS.API.STREAM.INFO.TG_EVENTS")
        async with asyncio.timeout(2):
            with pytest.raises(BrokerUnavailable, match="may be stored"):
                await EventPublisher(bus, History(bus), deadline_seconds=0.3).durable(
                    "broadcast", Event("n", "1"), headers={}
                )


async def test_what_is_confirmed_by_the_deadline_is_even_if_what_comes_after_it_is_not(
    tmp_path: Path,
) -> None:
    async with nats_server(tmp_path, jetstream=False) as server, connect(server.url, SUBJECTS, "test") as bus:
        tries: dict[bytes, int] = {}

        def heard(message: bytes) -> bool:
            """The first at once, the second when it is tried again, the third never."""
            tries[message] = tries.get(message, 0) + 1
            return message == b"1" or (message == b"2" and tries[message] > 1)

        await stream(bus, heard)
        block = headers.block({"Nats-Msg-Id": "x"})
        messages = [Message("tg.in.broadcast", payload, block) for payload in (b"1", b"2", b"3")]
        leaders = Leaders(bus, Patience(deadline_seconds=0.4, attempt_seconds=0.1))
        found = await StreamWriter(bus, leaders, Refusals()).store(messages)
        assert [type(each) for each in found] == [PubAck, PubAck, BrokerUnavailable]


async def stream(bus: Bus, hears: Callable[[bytes], bool]) -> None:
    """Stands in for the event stream, which is not there: confirms the messages that it `hears`."""
    stored = itertools.count(1)

    async def confirm(message: Msg) -> None:
        if hears(message.data):
            await message.respond(b'{"stream":"TG_EVENTS","seq":%d}' % next(stored))

    await bus.client.subscribe("tg.in.>", cb=confirm)
    await bus.round_trip()
