"""The parameters of a stream: what polyfills call them, which are refused, and what a client is told that it hears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import strategies as st

from gateway.sse.request import PARAMETERS
from tests.support.bus import broker
from tests.support.gateway import RunningGateway, open_stream, running_gateway
from tests.support.generated import holds_for
from tests.support.ways import Way, ask_by
from tests.support.wire import Told
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.runtime.query import IGNORED, IGNORED_NUMBERS, IGNORED_STARTS

J = "0123456789abcdef0123456789abcdef"
STREAM, JOB_STREAM = "/api/sse", f"/api/sse/jobs/{J}"


@asynccontextmanager
async def scene(data: Path, **settings: object) -> AsyncIterator[tuple[RunningGateway, list[str]]]:
    """A gateway, and the ids of a job's three events, which a client `ann` was sent; the job is over."""
    async with (
        broker(data) as (server, bus),
        running_gateway(server.url, heartbeat_seconds=0.1, **settings) as running,
    ):
        publisher, states = EventPublisher(bus, History(bus)), JobRecords(bus)
        before = await publisher.durable("client.other", Event("n", "before"), headers={})
        state = JobState(
            job_id=J,
            kind="chat",
            status=JobStatus.RUNNING,
            created=1,
            updated=1,
            tail="client.ann",
            start=before.id,
            attempt=1,
        )
        await states.create(state)
        ids = []
        for number in range(3):
            headers = {JOB: J, **({JOB_END: "1"} if number == 2 else {})}
            ids.append((await publisher.durable("client.ann", Event("ai", str(number)), headers=headers)).id)
        yield running, ids


async def asked(way: Way, running: RunningGateway, path: str, query: str, *fields: str) -> Told:
    return await ask_by(way, running, get(path, query, *fields))


async def resumed(way: Way, running: RunningGateway, path: str, query: str, *fields: str) -> list[str]:
    """What comes of the job up to its last event."""
    told = await ask_by(way, running, get(path, query, *fields), lambda received: received.data == "2")
    connected = told.event("connected")
    assert connected is not None, told
    assert connected["resumed"]
    return [event.data for event in told.events if event.event == "ai"]


def get(path: str, query: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path}?{query} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "evs_last_event_id"])
@pytest.mark.parametrize("path", [STREAM, JOB_STREAM])
@pytest.mark.parametrize("way", Way)
async def test_the_last_id_may_be_called_as_polyfills_call_it(tmp_path: Path, way: Way, path: str, name: str) -> None:
    """Yaffle's event-source-polyfill and reconnecting-eventsource append `lastEventId` to the address.

    It once was an unknown parameter, and ignored: their users lost what was sent meanwhile, without a `gap`, and read
    a finished answer again and again, since nobody told them that they had it all.
    """
    async with scene(tmp_path) as (running, ids):
        assert await resumed(way, running, path, f"client_id=ann&{name}={ids[0]}") == ["1", "2"]
        if path == JOB_STREAM:
            assert (await asked(way, running, path, f"client_id=ann&{name}={ids[2]}")).status == 204


@pytest.mark.parametrize("path", [STREAM, JOB_STREAM])
@pytest.mark.parametrize("way", Way)
async def test_of_several_last_ids_the_newest_counts(tmp_path: Path, way: Way, path: str) -> None:
    """The header is set anew each time; what a polyfill appends comes after what the address began with."""
    async with scene(tmp_path) as (running, (one, two, _)):
        header = f"Last-Event-ID: {two}"
        for query, fields in (
            (f"lastEventId={one}", [header]),
            (f"last_event_id={one}", [header]),
            (f"last_event_id={one}&lastEventId={two}", []),
            (f"lastEventId={two}&last_event_id={one}", []),
            (f"lastEventId={one}&lastEventId={two}", []),
            (f"last_event_id={two}&lastEventId=", []),
            (f"lastEventId={two}", ["Last-Event-ID:"]),
        ):
            assert await resumed(way, running, path, f"client_id=ann&{query}", *fields) == ["2"], query
        twice = await asked(way, running, path, f"last_event_id={one}&last_event_id={two}")
        assert (twice.status, twice.problem["field"]) == (422, "last_event_id")
        twice = await asked(way, running, path, "client_id=ann", header, header)
        assert (twice.status, twice.problem["field"]) == (422, "Last-Event-ID")


@pytest.mark.parametrize("way", Way)
async def test_an_unknown_parameter_is_refused_and_the_known_ones_are_said(tmp_path: Path, way: Way) -> None:
    """`topics=prices` once opened a stream that never heard a price."""
    async with scene(tmp_path) as (running, _):

        async def refused(name: str) -> None:
            for path, known in ((STREAM, "client_id, user_id, topic, last_event_id"), (JOB_STREAM, "client_id, last")):
                told = await asked(way, running, path, urlencode({"client_id": "ann", name: "x"}))
                assert (told.status, told.problem["field"]) == (422, name[:64]), path
                assert known in told.problem["allowed"]

        for name in ("topics", "Topic", "clientId", "lastEventID", "t", "", "topic[]", "topic "):
            await refused(name)
        for name in ("topic", "user_id"):
            told = await asked(way, running, JOB_STREAM, f"{name}=x")
            assert (told.status, told.problem["field"]) == (422, name)

        def unknown(name: str) -> bool:
            return name not in {*PARAMETERS, *IGNORED} and not name.startswith(IGNORED_STARTS)

        letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
        await holds_for(letters.filter(unknown), refused, 30)
        assert running.gateway.hub.audiences == running.gateway.admission.active == 0


@pytest.mark.parametrize("path", [STREAM, JOB_STREAM])
@pytest.mark.parametrize("way", Way)
async def test_what_others_add_to_addresses_is_ignored(tmp_path: Path, way: Way, path: str) -> None:
    """Cache busters, polyfills' and proxies' own parameters, and those that the operator names."""
    async with scene(tmp_path, ignored_parameters=("tenant", "x_*")) as (running, ids):
        added = [
            *(f"{name}=any" for name in sorted(IGNORED)),
            *(f"{start}some=%F6" for start in IGNORED_STARTS),
            *(f"{name}=1732810000.25" for name in sorted(IGNORED_NUMBERS)),
            "tenant=a",
            "x_region=b",
        ]
        query = "&".join([f"last_event_id={ids[0]}", "client_id=ann", *added])
        assert await resumed(way, running, path, query) == ["1", "2"]
        slip = await asked(way, running, path, "t=prices.eur")
        assert (slip.status, slip.problem["field"]) == (422, "t")
        named = await asked(way, running, path, "tenants=a")
        assert (named.status, named.problem["field"]) == (422, "tenants")


async def test_a_post_is_described_by_its_body_alone(tmp_path: Path) -> None:
    """What stood in its address was not read, and not missed."""
    async with scene(tmp_path) as (running, _):
        head = "POST /api/sse?topic=a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        told = await ask_by(Way.FAST, running, f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        assert (told.status, told.problem["field"]) == (422, "topic")
        head = head.replace("?topic=a", "?_=5")
        told = await ask_by(Way.FAST, running, f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        assert told.event("connected") is not None


@pytest.mark.parametrize("way", Way)
async def test_connected_says_what_is_listened_to(tmp_path: Path, way: Way) -> None:
    async with scene(tmp_path, max_topics=150) as (running, ids):

        async def listening(path: str, query: str) -> object:
            connected = (await asked(way, running, path, query)).event("connected")
            assert connected is not None
            return connected["listening"]

        assert await listening(STREAM, "client_id=ann") == ["broadcast", "client:ann"]
        names = "client_id=a.b&user_id=%C3%B6&topic=prices.*&topic=alerts.>&topic=prices.eur&topic=prices.*"
        topics = ["topic:prices.*", "topic:alerts.>", "topic:prices.eur"]
        assert await listening(STREAM, names) == ["broadcast", "client:a.b", "user:ö", *topics]
        assert await listening(JOB_STREAM, f"last_event_id={ids[0]}") == [f"job:{J}"]
        many = [f"topic:t.{number}" for number in range(98)]
        query = "client_id=ann&" + "&".join(f"topic=t.{number}" for number in range(98))
        assert await listening(STREAM, query) == ["broadcast", "client:ann", *many]
        assert await listening(STREAM, f"{query}&topic=t.98") == 101


async def test_a_post_is_told_what_it_listens_to(tmp_path: Path) -> None:
    async with scene(tmp_path) as (running, _):
        async with open_stream(running.url, body={"client_id": "p", "topic": ["a", "b.>"]}) as stream:
            told = await stream.connected()
            assert told["listening"] == ["broadcast", "client:p", "topic:a", "topic:b.>"]
