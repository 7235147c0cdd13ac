"""The whole feed over a stream in memory: whatever is lost, and when, each client has each event once and in order."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import frame
from gateway.hub.endings import Ending
from tests.support.hub import Peer
from tests.support.memory_feed import Feed
from tests.support.memory_stream import MemoryStream
from tests.support.skipping_loop import skipping_loop
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.subjects import covers
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry.providers import Telemetry, telemetry

TAILS = ("client.a", "broadcast", "topic.t.x", "topic.t.y", "topic.u.x")
LISTENING = (
    ("client.a", "broadcast"),
    ("broadcast", "topic.t.*"),
    ("topic.t.*", "topic.*.x"),
    ("client.a", "topic.t.x", "topic.>"),
    ("topic.*.x",),
    ("client.a", "broadcast", "topic.t.y"),
)


class Connection(Peer):
    """One of a client's: reads what is written to it."""

    def __init__(self, client: "Client") -> None:
        super().__init__()
        self.client = client
        self.send = self.read

    def read(self, chunks: bytes) -> None:
        for event in frame.events(chunks):
            assert event.event_type == b"n", "nothing is told but events"
            self.client.take(int(event.data), (event.event_id or b"").decode())


class Client:
    """One that comes, breaks off, and comes back with its last id."""

    def __init__(self, feed: Feed, tails: tuple[str, ...]) -> None:
        self.feed = feed
        self.tails = tails
        self.start = -1
        self.last_id: str | None = None
        self.got: list[int] = []
        self.connection: Connection | None = None
        self.attaching: asyncio.Task[None] | None = None

    @property
    def place(self) -> int:
        return self.start if self.last_id is None else int(self.last_id.split("-")[1])

    def take(self, sequence: int, event_id: str) -> None:
        assert sequence not in self.got, f"{sequence} comes twice"
        if event_id:
            assert event_id == f"one-{sequence}", "an id is of its own event"
            assert sequence > self.place, "ids only grow"
            self.last_id = event_id
        else:
            assert sequence < self.place, "only what is late has no id"
        self.got.append(sequence)

    def due(self, stream: MemoryStream, upto: int) -> list[int]:
        return [
            event.sequence
            for event in stream.events[:upto]
            if event.sequence > self.start >= 0 and any(covers(tail, event.tail) for tail in self.tails)
        ]

    def come(self) -> None:
        if self.connection is None:
            self.connection = Connection(self)
            self.attaching = asyncio.ensure_future(self._attach(self.connection))

    async def _attach(self, connection: Connection) -> None:
        async def start() -> None:
            await asyncio.sleep(0)

        def welcome(position: EventId, _: bool) -> bytes:
            if self.start < 0:
                self.start = position.sequence
            if self.last_id is None:
                self.last_id = str(position)
            return b""

        try:
            await self.feed.attachments.attach(connection, list(self.tails), self.last_id, start, welcome)
        except BrokerUnavailable:
            if self.connection is connection:  # it may have left, and come again
                self.connection = None

    def leave(self, stream: MemoryStream) -> None:
        """Not while something was overtaken that it lacks: nobody could know that it does (protocol.md)."""
        if self.connection in self.feed.hub.sessions and set(self.due(stream, self.place)) <= set(self.got):
            assert self.connection is not None
            self.connection.lost()
            self.connection = None


@pytest.fixture(scope="module")
def signals() -> Iterator[Telemetry]:
    with telemetry("gateway", {}) as made:
        yield made


LISTENED = sorted({tail for tails in LISTENING for tail in tails})
CLIENTS = st.integers(0, len(LISTENING) - 1)
publishing = st.tuples(st.just("publish"), st.sampled_from(TAILS), st.frozensets(st.sampled_from(LISTENED), max_size=3))
steps = st.tuples(st.just("steps"), st.integers(1, 6))
histories = st.lists(
    st.one_of(
        publishing,
        publishing,
        publishing,
        steps,
        steps,
        st.tuples(st.sampled_from(("come", "come", "leave")), CLIENTS),
        st.tuples(st.sampled_from(("cut", "back", "audit", "late"))),
    ),
    min_size=20,
    max_size=80,
)


async def live_through(history: list[tuple[Any, ...]], signals: Telemetry) -> None:
    stream = MemoryStream()
    feed = Feed(stream, signals)
    clients = [Client(feed, tails) for tails in LISTENING]
    looks: list[asyncio.Future[None]] = []
    for what, *about in history:
        if what == "publish":
            stream.publish(about[0], str(len(stream.events) + 1), tuple(about[1]))
        elif what == "come":
            clients[about[0]].come()
        elif what == "leave":
            clients[about[0]].leave(stream)
        elif what == "cut":
            stream.cut()
        elif what == "back":
            await stream.come_back()
        elif what == "late":
            stream.bring_late()
        elif what == "audit":
            looks.append(asyncio.ensure_future(feed.audit.look()))
        else:
            for _ in range(about[0]):
                await asyncio.sleep(0)
    await stream.come_back()
    await asyncio.sleep(10)
    for client in clients:
        client.come()
    await asyncio.sleep(10)
    for _ in range(2):
        for tail in TAILS:
            stream.publish(tail, str(len(stream.events) + 1))
    await asyncio.sleep(10)
    await feed.audit.look()
    await asyncio.sleep(10)
    with suppress(BrokerUnavailable):
        await asyncio.gather(*looks)
    for client in clients:
        assert client.attaching is not None
        await client.attaching
        assert sorted(client.got) == client.due(stream, len(stream.events)), "each has all"
    assert all(session.held is None for session in feed.hub.sessions)
    for client in clients:
        if client.connection is not None:
            feed.hub.end(client.connection, Ending.CLIENT)
            client.connection.lost()
    assert not feed.hub.audiences
    await feed.aclose()
    await end(looks)


@given(histories)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_lost_each_client_has_each_event_once_and_in_order(
    signals: Telemetry, history: list[tuple[Any, ...]]
) -> None:
    with skipping_loop() as loop:
        loop.run_until_complete(live_through(history, signals))
