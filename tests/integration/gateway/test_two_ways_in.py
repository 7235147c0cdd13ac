"""The fast path into `/api/sse` and the app's read every request alike, and both by RFC 9110 and 9112.

Each difference once was somebody's lost event or another's answer, and none was to be seen in a test of one way.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.bus import broker
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.generated import holds_for
from tests.support.identity import AUTH, token
from tests.support.odd_requests import CREDENTIALS, authenticated_requests, odd_requests
from tests.support.waiting import until
from tests.support.ways import Way, ask_by
from tests.support.wire import Told
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.events import Event
from tidegate_common.contract.jobs import JobState, JobStatus

MADE = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])")
"""A client's id as the gateway makes it."""

JOB_ID, OVER = "0123456789abcdef0123456789abcdef", "f" * 32
"""A job that is running, and one whose end is the stream's first event."""
JOB = b"/api/sse/jobs/" + JOB_ID.encode()
HAD = b"/api/sse/jobs/%s?last_event_id={epoch}-1" % OVER.encode()
PATHS = [b"/api/sse", JOB, HAD, b"/api/sse/jobs/none", b"/api/sse?topics=a"]
ORIGINS = [b"", *(b"Origin: %s\r\n" % origin for origin in (b"https://app.example", b"https://evil.example", b"null"))]
HOST = b"Host: localhost\r\n"

FOR_THE_CONNECTION = {"date", "connection", "transfer-encoding", "content-length", "keep-alive"}
"""What answers may differ in: how they are framed, and when they were given."""

SETTINGS: dict[str, Any] = {
    "heartbeat_seconds": 0.05,
    "trusted_proxies": ("127.0.0.1",),
    "cors_origins": ("https://app.example",),
    "max_connections_per_ip": 0,
}


@asynccontextmanager
async def scene(data: Path, **settings: Any) -> AsyncIterator[tuple[RunningGateway, bytes]]:
    """A gateway, and the epoch of a stream with one event."""
    async with broker(data) as (server, bus), running_gateway(server.url, **{**SETTINGS, **settings}) as running:
        await EventPublisher(bus, History(bus)).durable("topic.before", Event("n", "x"), headers={})
        yield running, (await History(bus).position()).epoch.encode()


async def make_jobs(bus: Bus, epoch: str) -> None:
    """The records of two jobs of ann's."""
    running = JobState(
        job_id=JOB_ID,
        kind="chat",
        status=JobStatus.RUNNING,
        created=1,
        updated=1,
        tail="client.ann",
        start=f"{epoch}-0",
    )
    records = JobRecords(bus)
    await records.create(running)
    await records.create(replace(running, job_id=OVER, status=JobStatus.DONE, end=f"{epoch}-1"))


async def outcome(way: Way, running: RunningGateway, request: bytes) -> dict[str, Any]:
    """What can be told of the answer to `request`, and of whom the gateway takes its sender for."""
    try:
        told = await ask_by(way, running, request)
    except (asyncio.IncompleteReadError, ConnectionError):
        return {"closed": True}
    addresses = sorted(session.address for session in running.gateway.hub.sessions) if told.status == 200 else []
    # What was refused in its middle may have begun all the same, and is not to be taken for the next one.
    begun, sessions = running.server.server_state.tasks, running.gateway.hub.sessions
    await until(lambda: not begun and not sessions, "all of it is over")
    return {"from": addresses, **described(told, request)}


def described(told: Told, request: bytes) -> dict[str, Any]:
    framing = FOR_THE_CONNECTION if told.status != 200 else FOR_THE_CONNECTION - {"connection"}
    fields = sorted(field for field in told.fields if field[0] not in framing)
    body: Any = told.body
    if "json" in told.field("content-type") and body:
        body = dict(told.problem)
        if body.get("trace_id", "").encode() not in request:
            body["trace_id"] = "invented"
    events = [(event.id, event.event, MADE.sub("made", event.data)) for event in told.events if event.event]
    return {"status": told.status, "fields": fields, "body": body, "events": events}


@pytest.mark.parametrize("origins", [("https://app.example",), ("*",), ()])
async def test_odd_requests_are_read_alike(tmp_path: Path, origins: tuple[str, ...]) -> None:
    """Of two `Last-Event-ID` one way took the first and one the last; what stood behind `#` was a part of the query.

    Pages of allowed and of other origins are among them, and watchers of a job: CORS and a job's stream have a rule
    on each way, and each answer has to be the same.
    """
    async with scene(tmp_path, cors_origins=origins) as (running, epoch):
        await make_jobs(running.bus, epoch.decode())
        seen = set[int]()

        async def alike(odd: bytes) -> None:
            request = odd.replace(b"{epoch}", epoch)
            fast = await outcome(Way.FAST, running, request)
            assert fast == await outcome(Way.PORTABLE, running, request)
            seen.add(fast.get("status", 0))

        for path, origin in itertools.product(PATHS, ORIGINS):
            await alike(b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path, HOST, origin))
        await holds_for(odd_requests(JOB_ID.encode()), alike, 100)
        assert {200, 204, 400, 404, 422} <= seen, "the generated requests reach all that they should"


async def test_credentials_are_read_alike(tmp_path: Path) -> None:
    """What is good on one way is good on the other, and what is refused is refused with the same words."""
    settings = {**AUTH, "auth_cookie": "session", "limit_auth_failures": "", "auth_leeway_seconds": 0}
    async with scene(tmp_path, **settings) as (running, epoch):
        await make_jobs(running.bus, epoch.decode())
        grants = ["topic:prices.*", "broadcast", "client:caf\u00e9"]
        stand_for = {
            b"{epoch}": epoch,
            b"{good}": token("ann", client="ann", subscribe=grants).encode(),
            b"{bad}": token("ann", secret="another secret, of 32 bytes as well").encode(),
            b"{expired}": token("ann", seconds=-1).encode(),
            b"{other}": token("bob").encode(),
        }
        seen = set[int]()

        async def alike(asked: bytes) -> None:
            request = asked
            for name, value in stand_for.items():
                request = request.replace(name, value)
            fast = await outcome(Way.FAST, running, request)
            assert fast == await outcome(Way.PORTABLE, running, request)
            seen.add(fast.get("status", 0))

        for line, path in itertools.product([b"", *(line + b"\r\n" for line in CREDENTIALS)], PATHS):
            await alike(b"GET %s HTTP/1.1\r\n%s%s\r\n" % (path, HOST, line))
        await holds_for(authenticated_requests(JOB_ID.encode()), alike, 100)
        assert {200, 204, 400, 401, 403, 404, 422} <= seen, "the generated requests reach all that they should"


BY_THE_RULES: list[tuple[bytes, int, str]] = [
    (b"GET /api/sse HTTP/1.1\r\n%s\r\n" % HOST, 200, "as it should be"),
    (b"\r\n\r\nGET /api/sse HTTP/1.1\r\n%s\r\n" % HOST, 200, "RFC 9112, 2.2: an empty line before is ignored"),
    (b"GET http://localhost/api/sse HTTP/1.1\r\n%s\r\n" % HOST, 200, "RFC 9112, 3.2.2: the absolute form is taken"),
    (b"GET /api/%%73se HTTP/1.1\r\n%s\r\n" % HOST, 200, "RFC 9110, 4.2.3: equivalent paths"),
    (b"GET /api/sse HTTP/1.1\r\nhOsT:localhost\t\r\n\r\n", 200, "RFC 9110, 5.1: names in any case; 5.5: blanks"),
    (b"GET /api/sse HTTP/1.0\r\n\r\n", 200, "RFC 9112, 3.2: HTTP/1.0 needs no Host"),
    (b"GET /api/sse HTTP/1.1\r\n%sExpect: 100-continue\r\n\r\n" % HOST, 200, "RFC 9110, 10.1.1: there is no content"),
    (b"GET /api/sse HTTP/1.1\r\n%sUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" % HOST, 200, "RFC 9110, 7.8: ignored"),
    (b"HEAD /api/sse HTTP/1.1\r\n%s\r\n" % HOST, 200, "RFC 9110, 9.3.2: as GET, without content"),
    (b"GET /api/sse#part HTTP/1.1\r\n%s\r\n" % HOST, 400, "RFC 9112, 3.2: a target has no fragment"),
    (b"GET http://localhost/api/sse#a HTTP/1.1\r\n%s\r\n" % HOST, 400, "in no form"),
    (b"GET /api/sse?a b HTTP/1.1\r\n%s\r\n" % HOST, 400, "RFC 9112, 3.2: no blank in it"),
    (b"GET /api/sse?_=\xc3\xb6 HTTP/1.1\r\n%s\r\n" % HOST, 400, "RFC 3986, 2: ASCII alone"),
    (b"GET /api/sse HTTP/1.1\r\n\r\n", 400, "RFC 9112, 3.2: HTTP/1.1 needs a Host"),
    (b"GET /api/sse HTTP/1.1\r\n%s%s\r\n" % (HOST, HOST), 400, "RFC 9112, 3.2: one Host"),
    (b"GET /api/sse HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, "RFC 9112, 5.1: no blank before the colon"),
    (b"GET /api/sse HTTP/1.1\r\n%sX: a\r\n b\r\n\r\n" % HOST, 400, "RFC 9112, 5.2: no folded line"),
    (b"GET /api/sse HTTP/1.1\r\n%sX: a\0b\r\n\r\n" % HOST, 400, "RFC 9110, 5.5: no NUL in a value"),
    (b"GET /api/sse HTTP/1.1\r\n%sX: a\rb\r\n\r\n" % HOST, 400, "RFC 9112, 2.2: no bare CR"),
    (b"GET /api/sse HTTP/1.1\r\n%s: x\r\n\r\n" % HOST, 400, "RFC 9110, 5.1: a name is not empty"),
    (b"GET /api/sse HTTP/1.1\r\n%sContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % HOST, 400, "6.1"),
    (b"GET /api/sse HTTP/1.1\r\n%sTransfer-Encoding: gzip\r\n\r\n" % HOST, 400, "RFC 9112, 6.3: no end to be told"),
    (b"GET /api/sse HTTP/2.0\r\n%s\r\n" % HOST, 505, "RFC 9110, 15.6.6: another major version"),
    (b"PROPFIND /api/sse HTTP/1.1\r\n%s\r\n" % HOST, 405, "RFC 9110, 15.5.6: a method that is known, and not here"),
]


@pytest.mark.parametrize("way", Way)
async def test_both_ways_keep_to_the_rules_of_http(tmp_path: Path, way: Way) -> None:
    async with scene(tmp_path) as (running, _):
        for request, status, rule in BY_THE_RULES:
            assert (await ask_by(way, running, request)).status == status, (request, rule)


@pytest.mark.parametrize("way", Way)
async def test_trailers_are_no_headers(tmp_path: Path, way: Way) -> None:
    """RFC 9110, 6.5.1: they are not merged into what a request is read from."""
    async with scene(tmp_path) as (running, epoch):
        trailer = b"0\r\nLast-Event-ID: %s-1\r\n\r\n" % epoch
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        told = await ask_by(way, running, b"GET /api/sse HTTP/1.1\r\n%s%s%s" % (HOST, chunked, trailer))
        connected = told.event("connected")
        assert connected is not None
        assert not connected["resumed"]


@pytest.mark.parametrize("way", Way)
async def test_blanks_around_a_value_are_no_part_of_it(tmp_path: Path, way: Way) -> None:
    """RFC 9110, 5.5. An id with a blank behind it once was another one, and its client was told a gap."""
    async with scene(tmp_path) as (running, epoch):
        for blanks in (b"", b" ", b"\t", b" \t \t"):
            line = b"Last-Event-ID:%s%s-1%s\r\n" % (blanks, epoch, blanks)
            told = await ask_by(way, running, b"GET /api/sse HTTP/1.1\r\n%s%s\r\n" % (HOST, line))
            connected = told.event("connected")
            assert connected is not None
            assert connected["resumed"], blanks


@pytest.mark.parametrize("way", Way)
async def test_who_asks_for_the_last_answer_of_a_connection_is_told_that_it_is(tmp_path: Path, way: Way) -> None:
    """RFC 9112, 9.6, which the fast path left out."""
    async with scene(tmp_path) as (running, _):
        for option in (b"close", b"Close", b"x, close", b"keep-alive, close"):
            told = await ask_by(way, running, b"GET /api/sse HTTP/1.1\r\n%sConnection: %s\r\n\r\n" % (HOST, option))
            assert (told.status, told.field("connection")) == (200, "close")
        told = await ask_by(way, running, b"GET /api/sse HTTP/1.1\r\n%sConnection: keep-alive\r\n\r\n" % HOST)
        assert (told.status, told.field("connection")) == (200, "")


async def test_a_stream_before_another_request_ends_with_its_connection(tmp_path: Path) -> None:
    """The server told the last request of its client's leaving, and not the one that was being answered: a plain
    stream with another request behind it held its place until it was idle for half an hour.
    """
    async with scene(tmp_path) as (running, _):
        one = b"GET /api/sse?client_id=ann HTTP/1.1\r\n%s\r\n" % HOST
        told = await ask_by(Way.FAST, running, one + one)
        assert told.event("connected") is not None
        await until(lambda: not running.gateway.hub.sessions, "the stream is gone")
        assert running.gateway.admission.active == 0
