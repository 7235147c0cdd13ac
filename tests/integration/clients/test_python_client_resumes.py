"""The Python client on a real gateway."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.publisher import running_publisher
from tidegate import Closing, Event, Gap, Stream, connect
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams


async def send(publisher: httpx.AsyncClient, numbers: range) -> None:
    for number in numbers:
        event = {"topic": "a", "event_type": "note", "data": str(number)}
        assert (await publisher.post("/api/sse/send", json=event)).status_code == 202


async def read(stream: Stream, notes: int) -> list[Event]:
    """The events up to and with the given number of notes."""
    got: list[Event] = []
    while sum(event.type == "note" for event in got) < notes:
        got.append(await anext(stream))
    return got


async def test_a_restart_of_gateway_and_nats_is_told_by_closing_and_loses_and_repeats_nothing(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    async with connect(f"http://127.0.0.1:{http}/api/sse", topics=["a"]) as stream:
        async with nats_server(tmp_path, port) as server, running_publisher(server.url) as (publisher, _):
            env = {"TIDEGATE_NATS_URL": server.url, "TIDEGATE_DRAIN_SECONDS": "1"}
            async with service("gateway", http, env):
                assert (await anext(stream)).type == "connected"
                await send(publisher, range(5))
                got = await read(stream, 5)
        async with nats_server(tmp_path, port) as server, running_publisher(server.url) as (publisher, _):
            await send(publisher, range(5, 10))
            async with service("gateway", http, env):
                got += await read(stream, 5)
                await send(publisher, range(10, 12))
                got += await read(stream, 2)
    assert [event.data for event in got if event.type == "note"] == [str(number) for number in range(12)]
    assert [event.json()["reason"] for event in got if isinstance(event, Closing)] == ["drain"]
    assert {event.type for event in got} == {"note", "closing", "connected"}


async def test_a_stream_that_was_made_anew_is_told_by_closing_and_a_gap_and_then_all_of_it_comes(
    tmp_path: Path,
) -> None:
    async with (
        broker(tmp_path) as (server, bus),
        running_gateway(server.url) as running,
        running_publisher(server.url) as (publisher, _),
        connect(f"{running.url}/api/sse", client_id="ann", topics=["a"]) as stream,
    ):
        assert (await anext(stream)).type == "connected"
        await send(publisher, range(3))
        await read(stream, 3)
        last = stream.last_event_id
        await bus.jetstream.delete_stream(bus.subjects.events_stream)
        await ensure_streams(bus, StreamLimits(), update=False)
        await send(publisher, range(3, 5))
        got = await read(stream, 2)
    assert [event.type for event in got] == ["closing", "connected", "gap", "note", "note"]
    closing, connected, gap, *notes = got
    assert (closing.json()["reason"], connected.json()["client_id"]) == ("feed", "ann")
    assert (gap.json()["reason"], gap.json()["from"]) == ("epoch", last)
    assert [note.data for note in notes] == ["3", "4"]


@pytest.mark.parametrize("id_", ["名前 1", "é", " a ", "a\x01\x7f", "%41+&="])
async def test_an_id_of_any_characters_reaches_the_gateway_as_it_is(tmp_path: Path, id_: str) -> None:
    """One outside of ASCII never left the client, which tried again for ever."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        async with connect(f"{running.url}/api/sse", last_event_id=id_) as stream:
            assert (await anext(stream)).type == "connected"
            gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.json()["from"] == id_
