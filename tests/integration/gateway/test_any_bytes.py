"""Anybody who reaches NATS can publish anything: no byte of it ends the gateway's hearing, live or by replay."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.nats import NatsServer, nats_server
from tests.support.otlp import collector
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event

SAMPLED = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"


class Raw(NamedTuple):
    """A message as it is written to NATS: `subject` and `header` are any bytes; without a header it is a PUB."""

    subject: bytes
    header: bytes | None
    payload: bytes

    def wire(self) -> bytes:
        if self.header is None:
            return b"PUB %b %d\r\n%b\r\n" % (self.subject, len(self.payload), self.payload)
        size = len(self.header)
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (
            self.subject, size, size + len(self.payload), self.header, self.payload
        )  # fmt: skip


class Writer:
    """A connection to NATS that writes bytes as they are, and waits until the server has taken them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def to(cls, nats: NatsServer) -> AsyncIterator["Writer"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
        writer.write(b'CONNECT {"headers":true,"verbose":false,"pedantic":false}\r\n')
        made = cls(reader, writer)
        await made.write(b"")
        yield made
        writer.close()

    async def write(self, wire: bytes) -> None:
        self._writer.write(wire + b"PING\r\n")
        while (line := await self._reader.readline()) != b"PONG\r\n":
            assert not line.startswith(b"-ERR"), line
            assert line, "the server has ended the writer's connection"


class World(NamedTuple):
    gateway: RunningGateway
    publisher: EventPublisher
    writer: Writer
    live: Stream
    position: str


@asynccontextmanager
async def world(data: Path) -> AsyncIterator[World]:
    """A gateway that traces, with one client that hears all topics, and the application's own publisher."""
    environ = pytest.MonkeyPatch()
    async with collector() as otlp:
        environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.endpoint)
        environ.setenv("OTEL_METRICS_EXPORTER", "none")
        try:
            async with heard_by_a_gateway(data) as here:
                yield here
        finally:
            environ.undo()


@asynccontextmanager
async def heard_by_a_gateway(data: Path) -> AsyncIterator[World]:
    async with (
        nats_server(data) as nats,
        running_gateway(nats.url, environ=os.environ, audit_seconds=1) as gateway,
        running_publisher(nats.url) as (_, bus),
        open_stream(gateway.url, {"client_id": "ann", "topic": "t.>"}) as live,
        Writer.to(nats) as writer,
    ):
        await live.connected()
        position = live.events[0].id
        yield World(gateway, EventPublisher(bus, History(bus)), writer, live, position)


async def heard_after(here: World, messages: list[Raw], marker: str) -> tuple[list[str], list[str]]:
    """What comes up to an event `marker` that is sent after `messages`: live, and by a replay."""
    before, start = len(here.live.events), here.live.events[-1].id or here.position
    await here.writer.write(b"".join(each.wire() for each in messages))
    await here.publisher.durable("topic.t.end", Event("note", marker), headers={})
    await until(lambda: marker in [each.data for each in here.live.events], "the live stream hears")
    live = [each.data for each in here.live.events[before:]]
    async with open_stream(
        here.gateway.url, {"client_id": "bob", "topic": "t.>"}, headers={"Last-Event-ID": start}
    ) as other:
        await until(lambda: marker in [each.data for each in other.events], "a replay comes to its end")
        replayed = [each.data for each in other.events if each.event not in ("connected", "gap")]
    return live, replayed


@pytest.mark.parametrize("subject", [b"\xff", b"\x0b", b"a\rb", b"\x00", b"\x85.\xa0", b"*.>"], ids=repr)
async def test_a_subject_that_is_no_text_costs_nobody_anything(
    tmp_path: Path, subject: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Decoding such a subject for a span ended the transport of the whole gateway: it was deaf for 20 to 30 seconds."""
    async with world(tmp_path) as here:
        block = b"NATS/1.0\r\n" + SAMPLED + b"\r\n"
        _, replayed = await heard_after(here, [Raw(b"tg.in.topic.t." + subject, block, b"odd")] * 3, "marker")
        assert replayed == ["odd"] * 3 + ["marker"]
        # Where NATS does not republish on such a subject, the audit finds what the stream has.
        await until(lambda: [each.data for each in here.live.events].count("odd") == 3, "the live stream has them", 20)
        assert here.gateway.bus.losses == 0
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


ANY_SUBJECT = st.binary(min_size=1, max_size=12).filter(lambda subject: not set(subject) & set(b" \t\n"))
NAMES = [
    b"Nats-Sequence", b"Nats-Last-Sequence", b"Nats-Stream", b"Nats-Subject", b"Nats-Time-Stamp", b"Nats-Num-Pending",
    b"Nats-UpTo-Sequence", b"Tidegate-Event", b"Tidegate-Volatile", b"Tidegate-Receipt", b"Tidegate-Job",
    b"Tidegate-Job-End", b"traceparent", b"tracestate", b"Status", b"Content-Type",
]  # fmt: skip
VALUES = st.binary(max_size=40).map(lambda value: value.replace(b"\r\n", b"")) | st.sampled_from(
    [b"1", b"0", b"-1", b"9" * 20, b"9" * 30, b"TG_EVENTS", b"tg.in.topic.t.x", SAMPLED[13:-2], b"\xff" * 54 + b"1"]
)
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES).map(lambda field: b"%b: %b\r\n" % field), max_size=6)
HEADERS = (
    st.none()
    | st.binary(
        min_size=2, max_size=60
    )  # one byte of a header ends nats-server 2.15.1 itself, where a stream republishes
    | FIELDS.map(lambda fields: b"NATS/1.0\r\n" + b"".join(fields) + b"\r\n")
    | st.tuples(st.sampled_from([b"NATS/1.0 204 EOB\r\n", b"NATS/1.0 503\r\n", b"NATS/1.0 \xff\r\n"]), FIELDS).map(
        lambda parts: parts[0] + b"".join(parts[1]) + b"\r\n"
    )
)
SUBJECTS = st.sampled_from([b"tg.in.topic.t.", b"tg.out.topic.t.", b"tg.in.client.", b"tg.out.client."]).flatmap(
    lambda prefix: ANY_SUBJECT.map(lambda rest: prefix + rest)
) | st.sampled_from(
    [b"tg.out.client.ann", b"tg.in.client.ann", b"tg.out.topic.t.x", b"tg.in.topic.t.x", b"tg.ctl.presence",
     b"tg.ctl.receipts", b"tg.ctl.gateways", b"tg.ctl.jobs", b"tg.ctl.cancel.x", b"tg.ctl.models", b"tg.ctl.answers.x"]
)  # fmt: skip
MESSAGES = st.builds(Raw, SUBJECTS, HEADERS, st.binary(max_size=60))


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the exporter's thread does, meanwhile
def test_whatever_bytes_come_the_gateway_hears_what_comes_after_them(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        whole = world(tmp_path)
        here = runner.run(whole.__aenter__())
        number = 0

        @given(st.lists(MESSAGES, min_size=1, max_size=12))
        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        def check(messages: list[Raw]) -> None:
            nonlocal number
            number += 1
            live, replayed = runner.run(heard_after(here, messages, f"marker {number}"))
            assert live[-1] == replayed[-1] == f"marker {number}"
            assert here.gateway.bus.losses == 0

        check()
        runner.run(whole.__aexit__(None, None, None))
