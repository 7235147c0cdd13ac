"""Headers that JetStream writes, and others copy or forge: a message's place is what its own stream wrote last."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nats.js.api import RePublish, StreamConfig

from gateway.feed.reader import JobReader
from tests.support.bus import broker
from tests.support.feed import deaf, synced
from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.raw import RawPublisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.events import job_events
from tidegate_common.contract.events import Event


async def _heard(stream: Stream, count: int) -> list[tuple[str, str]]:
    """Ids and data of the next events."""
    events = [await stream.next() for _ in range(count)]
    return [(event.id, event.data) for event in events]


async def test_an_event_that_another_service_forwards_is_heard_live_and_by_replay(tmp_path: Path) -> None:
    """A service took an event of bob's off `tg.out` and wrote it to ann with all its headers, JetStream's too.

    Live it came. Whoever came back over it hung after `connected` for ever: the replay read the copied sequences as
    its own, saw a page that did not fit together, and asked again without end.
    """
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher, raw, caught = EventPublisher(bus, History(bus)), RawPublisher(bus), list[bytes]()
        bus.client.subscribe_direct("tg.out.client.bob", lambda _, block, __: caught.append(block))
        start = await publisher.durable("client.ann", Event("n", "1"), headers={})
        for data in (b"2", b"3"):  # without a message id: within its window JetStream keeps one event for one id
            await raw.store("tg.in.client.bob", b"NATS/1.0\r\nTidegate-Event: n\r\n\r\n", data)
        await until(lambda: len(caught) == 2, "bob's events are caught")
        async with open_stream(running.url, {"client_id": "ann"}) as live:
            await live.connected()
            written = [(await raw.store("tg.in.client.ann", block, b"copied"), "copied") for block in caught]
            last = await publisher.durable("client.ann", Event("n", "after"), headers={})
            due = [(f"{start.id.split('-')[0]}-{sequence}", data) for sequence, data in written]
            due.append((last.id, "after"))
            assert await _heard(live, 3) == due
        async with open_stream(running.url, {"client_id": "ann"}, {"last-event-id": start.id}) as back:
            await back.connected()
            assert await _heard(back, 3) == due
        assert running.gateway.repairs.holes == 0


NAMES = (
    "Nats-Sequence",
    "Nats-Last-Sequence",
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-UpTo-Sequence",
    "Nats-Msg-Size",
    "Status",
    "Description",
)
VALUES = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "7", "18446744073709551616", "-1", "", " ", "x", "1.5", "0x1", "TG_EVENTS", "tg.in.topic.t.a"]
    ),
    st.sampled_from(["2026-01-01T00:00:00Z", "yesterday", "\u00b2", "204 EOB", "7\tNats-Last-Sequence: 9", "a:b: c"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12),
)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, *(name.lower() for name in NAMES), *(name.upper() for name in NAMES)]),
        st.sampled_from([":", ": ", " : ", ":\t"]),
        VALUES,
        st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r\n "]),
    ),
    max_size=14,
)
FIRST = st.sampled_from(["NATS/1.0", "NATS/1.0", "NATS/1.0 204 EOB", "NATS/1.0 404", "NATS/1.0 503 x", "HTTP/1.1 200"])
LAST = st.sampled_from(["\r\n\r\n", "\r\n\r\n", "\r\n\r\n", "\r\n", "", "\r\n\r\n\r\n"])
BLOCKS = st.builds(
    lambda first, fields, last: (first + "\r\n" + "".join("".join(each) for each in fields)).encode() + last.encode(),
    FIRST,
    FIELDS,
    LAST,
)


@pytest.mark.parametrize("kind", ["exact", "wide"])
def test_no_copied_or_forged_header_costs_an_event_or_changes_an_id(tmp_path: Path, kind: str) -> None:
    """Any header block before the stream's own: each listener hears each event once, live and by replay, by its id."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server, bus = runner.run(stack.enter_async_context(broker(tmp_path)))
        running = runner.run(stack.enter_async_context(running_gateway(server.url, audit_seconds=0)))
        query = {"client_id": "x", "topic": "t.a" if kind == "exact" else "t.*"}

        @settings(
            max_examples=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
        )
        @given(st.lists(BLOCKS, min_size=1, max_size=6))
        def hold(blocks: list[bytes]) -> None:
            runner.run(_hold(running, bus, query, blocks))

        try:
            hold()
        finally:
            runner.run(stack.aclose())


async def _hold(running: RunningGateway, bus: Bus, query: dict[str, str], blocks: list[bytes]) -> None:
    """Stores a message with each of `blocks`, and hears them live and by replay."""
    raw, publisher = RawPublisher(bus), EventPublisher(bus, History(bus))
    before = await publisher.durable("broadcast", Event("n", "before"), headers={})
    epoch, _, began = before.id.partition("-")
    async with open_stream(running.url, query) as live:
        await live.connected()
        due = [(f"{epoch}-{await raw.store('tg.in.topic.t.a', block, b'x')}", "x") for block in blocks]
        due.append(((await publisher.durable("topic.t.a", Event("n", "end"), headers={})).id, "end"))
        assert await _heard(live, len(due)) == due
    async with open_stream(running.url, query, {"last-event-id": f"{epoch}-{began}"}) as back:
        await back.connected()
        assert await _heard(back, len(due)) == due
    assert running.gateway.repairs.holes == 0


@pytest.mark.parametrize("query", [{"client_id": "a"}, {"topic": "t.*"}])
async def test_the_audit_finds_an_event_with_copied_headers_that_nats_did_not_bring(
    tmp_path: Path, query: dict[str, str]
) -> None:
    """The copied fields stood before the stream's own in what the audit read: it never came to an end."""
    tail, listened = ("topic.t.x", "topic.t.*") if "topic" in query else ("client.a", "client.a")
    forged = "Nats-Stream: X\r\nNats-Subject: tg.in.z\r\nNats-Sequence: 1\r\nNats-Num-Pending: 9\r\n"
    block = (
        f"NATS/1.0\r\nTidegate-Event: n\r\n{forged}Nats-Last-Sequence: 900\r\nNats-UpTo-Sequence: 1\r\n\r\n".encode()
    )
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, audit_seconds=0.1) as running:
        raw, publisher = RawPublisher(bus), EventPublisher(bus, History(bus))
        async with open_stream(running.url, query) as stream:
            await stream.connected()
            first = await publisher.durable(tail, Event("n", "heard"), headers={})
            assert await _heard(stream, 1) == [(first.id, "heard")]
            with deaf(running, listened):
                await synced(running)
                sequence = await raw.store(f"tg.in.{tail}", block, b"lost")
                assert await _heard(stream, 1) == [(f"{first.id.split('-')[0]}-{sequence}", "lost")]


async def test_a_job_s_events_with_copied_headers_come_to_its_own_stream_and_to_its_readers(tmp_path: Path) -> None:
    """The answer is read back, and read as it comes (`/v1`), by the same places."""
    forged = "Nats-Stream: TG_EVENTS\r\nNats-Sequence: 1\r\nNats-Last-Sequence: 900\r\nNats-Subject: tg.in.client.b\r\n"
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        raw, history = RawPublisher(bus), History(bus)
        position = await history.position()
        async with JobReader(running.gateway.attachments, "client.ann", "j1") as reader:
            await reader.attached()
            async with open_stream(running.url, {"client_id": "ann"}) as live:
                await live.connected()
                sequences: list[int] = []
                for number in range(4):
                    end = "Tidegate-Job-End: 1\r\n" if number == 3 else ""
                    block = f"NATS/1.0\r\n{forged}Tidegate-Job: j1\r\n{end}\r\n".encode()
                    sequences.append(await raw.store("tg.in.client.ann", block, b"%d" % number))
                async with asyncio.timeout(10):
                    assert [data async for _, data in reader.events()] == [b"0", b"1", b"2", b"3"]
                due = [(f"{position.epoch}-{each}", str(number)) for number, each in enumerate(sequences)]
                assert await _heard(live, 4) == due
        read = [event.sequence async for event in job_events(history, "j1", "client.ann", 0, sequences[-1])]
        assert read == sequences


async def test_events_of_a_foreign_stream_on_our_subjects_are_volatile_and_cost_none_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream of somebody else's republished to `tg.out.topic.orders.>`, where gateways took its sequences for ours.

    Of nine events two were passed over as heard already, and ids were of one stream or the other.
    """
    foreign = StreamConfig(
        name="ORDERS", subjects=["orders.>"], republish=RePublish(src="orders.>", dest="tg.out.topic.orders.>")
    )
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        await bus.jetstream.add_stream(foreign)
        publisher = EventPublisher(bus, History(bus))
        for _ in range(20):  # its sequences are ahead of ours
            await bus.jetstream.publish("orders.eu", b"early")
        async with open_stream(running.url, {"topic": ["orders.*", "*.eu", "orders.>"]}) as live:
            await live.connected()
            start = live.events[0].id
            due, foreign_data = [], []
            for number in range(9):
                receipt = await publisher.durable("topic.orders.eu", Event("n", f"own {number}"), headers={})
                due.append((receipt.id, f"own {number}"))
                await bus.jetstream.publish("orders.eu", b"foreign %d" % number)
                foreign_data.append(f"foreign {number}")
            got = [await live.next() for _ in range(18)]
            assert [(event.id, event.data) for event in got if event.data.startswith("own")] == due
            assert [event.data for event in got if event.data.startswith("foreign")] == foreign_data
            assert not any(event.event == "gap" for event in live.events)
        async with open_stream(running.url, {"topic": "orders.eu"}, {"last-event-id": start}) as back:
            await back.connected()
            assert await _heard(back, 9) == due
        gateway = running.gateway
        assert gateway.repairs.holes == 0
        assert gateway.subscriptions.other_streams.count == 9
        said = [record for record in caplog.records if "ORDERS" in str(record.__dict__)]
        assert len(said) == 1
        assert said[0].levelname == "WARNING"


async def test_an_event_s_message_that_is_sent_on_past_the_stream_has_no_place_in_it(tmp_path: Path) -> None:
    """A message off one `tg.out` subject written straight to another: the place that it names is another subject's."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher, raw, caught = EventPublisher(bus, History(bus)), RawPublisher(bus), list[bytes]()
        bus.client.subscribe_direct("tg.out.client.bob", lambda _, block, __: caught.append(block))
        for _ in range(5):
            await publisher.durable("client.bob", Event("n", "bob's"), headers={})
        await until(lambda: len(caught) == 5, "bob's events are caught")
        async with open_stream(running.url, {"client_id": "ann"}) as live:
            await live.connected()
            first = await publisher.durable("client.ann", Event("n", "1"), headers={})
            for block in caught:
                raw.send("tg.out.client.ann", block, b"sent on")
            second = await publisher.durable("client.ann", Event("n", "2"), headers={})
            got = await _heard(live, 7)
            assert [each for each in got if each[1] != "sent on"] == [(first.id, "1"), (second.id, "2")]
        assert running.gateway.subscriptions.other_streams.count == 5


async def test_one_event_s_headers_on_messages_to_two_subjects_make_them_no_copies_of_each_other(
    tmp_path: Path,
) -> None:
    """Who listened to both by tails that overlap got the first alone, as if it had come twice."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        async with open_stream(running.url, {"client_id": "a", "topic": ["t.*", "*.x", "*.y"]}) as stream:
            await stream.connected()
            heard: list[bytes] = []
            bus.client.subscribe_direct("tg.out.client.b", lambda _, block, __: heard.append(block))
            await bus.round_trip()
            await EventPublisher(bus, History(bus)).durable("client.b", Event("n", "b's"), headers={})
            await until(lambda: heard, "the event is taken off")
            raw = RawPublisher(bus)
            for tail in ("topic.t.x", "topic.t.y"):
                raw.send(f"tg.out.{tail}", heard[0], tail.encode())
            await bus.client.publish("tg.out.topic.t.z", b"last")
            assert [data for _, data in await _heard(stream, 3)] == ["topic.t.x", "topic.t.y", "last"]
            assert running.gateway.subscriptions.other_streams.count == 2


async def test_a_replay_that_gets_nothing_of_the_stream_ends_in_an_error_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody switched direct reads off on the stream by hand: NATS answers, and gives no event.

    Whoever came back hung after `connected` for ever, without a gap, an end or a log line.
    """
    async with (
        broker(tmp_path) as (server, bus),
        running_gateway(server.url, replay_patience_seconds=0.5) as running,
    ):
        publisher = EventPublisher(bus, History(bus))
        start = await publisher.durable("client.a", Event("n", "1"), headers={})
        await publisher.durable("client.a", Event("n", "2"), headers={})
        info = await bus.jetstream.stream_info("TG_EVENTS")
        info.config.allow_direct = False
        await bus.jetstream.update_stream(info.config)
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": start.id}) as stream:
            assert (await stream.connected())["resumed"]
            assert json.loads((await stream.next("closing")).data)["reason"] == "feed"
            await until(lambda: stream.ended, "the stream is over")
        assert running.gateway.recovery.stuck == 1
        said = [record for record in caplog.records if record.levelname == "WARNING" and "replay" in record.message]
        assert len(said) == 1
