"""What a stream may listen to: the token decides, on both ways to the socket and by POST."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.support.bus import broker
from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event
from tidegate_common.contract.subjects import client_tail, topic_tail, user_tail

NAME = "caf\u00e9"


@asynccontextmanager
async def asked(data: Path, **settings: Any) -> AsyncIterator[tuple[RunningGateway, Bus]]:
    """A gateway that asks everyone who they are, and a connection to publish by."""
    async with broker(data) as (server, bus), running_gateway(server.url, **AUTH, **settings) as running:
        yield running, bus


async def tell(bus: Bus, tail: str, data: str) -> str:
    return str((await EventPublisher(bus, History(bus)).durable(tail, Event("n", data), headers={})).id)


async def refused(
    running: RunningGateway, query: str, headers: Mapping[str, str], body: Any = None, path: str = "/api/sse"
) -> dict[str, Any]:
    """The problem that a request for a stream gets. Nothing has begun then."""
    async with httpx.AsyncClient() as client:
        response = await client.request(
            "GET" if body is None else "POST", f"{running.url}{path}{query}", headers=headers, json=body
        )
    assert not running.gateway.hub.sessions
    assert not running.gateway.admission.active
    problem: dict[str, Any] = response.json()
    return problem


async def heard(stream: Stream, bus: Bus, tails: list[str], last: str) -> list[str]:
    """What the stream hears of one event on each of `tails`; `last` is one that it hears for certain."""
    for tail in [*tails, last]:
        await tell(bus, tail, tail)
    got: list[str] = []
    while last not in got:
        got.append((await stream.next("n")).data)
    return got


@BOTH_PATHS
async def test_a_user_hears_what_is_its_own_and_what_it_is_granted(tmp_path: Path, streams: str) -> None:
    """Its user and its client without a word, topics and broadcasts by grants; of others not one event."""
    async with asked(tmp_path, streams=streams) as (running, bus):
        granted = bearer(token("ann", subscribe=["topic:prices.*", "broadcast"]))
        async with open_stream(running.url, {"topic": "prices.eur"}, granted) as stream:
            told = await stream.connected()
            mine = client_tail(told["client_id"])
            assert told["listening"] == ["broadcast", f"client:{told['client_id']}", "user:ann", "topic:prices.eur"]
            tails = [
                "broadcast",
                user_tail("bob"),
                client_tail("bob"),
                topic_tail("prices.usd"),
                user_tail("ann"),
                mine,
            ]
            last = topic_tail("prices.eur")
            assert await heard(stream, bus, tails, last) == ["broadcast", user_tail("ann"), mine, last]


@BOTH_PATHS
async def test_a_stream_without_the_right_to_broadcasts_opens_and_hears_none(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, bus):
        async with open_stream(running.url, None, bearer(token("ann"))) as stream:
            told = await stream.connected()
            assert told["listening"] == [f"client:{told['client_id']}", "user:ann"]
            assert await heard(stream, bus, ["broadcast"], user_tail("ann")) == [user_tail("ann")]


NOT_COVERED: list[tuple[list[str], dict[str, str]]] = [
    ([], {"topic": "prices.eur"}),
    (["topic:prices.*"], {"topic": "prices.>"}),
    (["topic:*"], {"topic": ">"}),
    (["topic:prices.*"], {"topic": "*.*"}),
    (["topic:prices.*"], {"topic": "prices"}),
    (["topic:prices.eur"], {"topic": "prices%2Eeur"}),
    (["topic:prices.eur"], {"topic": "prices.%65ur"}),
    ([f"topic:{unicodedata.normalize('NFC', NAME)}"], {"topic": unicodedata.normalize("NFD", NAME)}),
    (["topic:\u00f6"], {"topic": "\ufffd"}),
    (["user:ann"], {"user_id": "bob"}),
    (["user:*"], {"topic": "bob"}),
    (["topic:>"], {"user_id": "bob"}),
    (["topic:>"], {"client_id": "bob"}),
    (["client:ann.*"], {"client_id": "ann.x"}),
    (["client:*"], {"user_id": "*"}),
    (["jobs:*", "broadcast"], {"client_id": "bob"}),
]
"""What is granted, and what is asked for."""


@BOTH_PATHS
async def test_what_no_grant_covers_is_refused(tmp_path: Path, streams: str) -> None:
    """Names are compared byte by byte. The answer says which right would do, and nothing has begun."""
    async with asked(tmp_path, streams=streams) as (running, _):
        for grants, wish in NOT_COVERED:
            (field, name), *_ = wish.items()
            headers = bearer(token("ann", subscribe=grants))
            for problem in (
                await refused(running, f"?{field}={quote(name, safe='')}", headers),
                await refused(running, "", headers, body=wish),
            ):
                needed = f"subscribe {field.removesuffix('_id')}:{name}"
                assert (problem["status"], problem["needed"]) == (403, needed), grants


@BOTH_PATHS
async def test_a_name_is_decoded_once(tmp_path: Path, streams: str) -> None:
    """`%252E` in an address is the name `%2E`, and no dot."""
    async with asked(tmp_path, streams=streams) as (running, _):
        headers = bearer(token("ann", subscribe=["topic:a.b"]))
        problem = await refused(running, "?topic=a%252Eb", headers)
        assert (problem["status"], problem["needed"]) == (403, "subscribe topic:a%2Eb")
        async with open_stream(f"{running.url}", None, headers, path="/api/sse?topic=a%2Eb") as stream:
            assert "topic:a.b" in (await stream.connected())["listening"]


@BOTH_PATHS
async def test_head_is_answered_as_get_is(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, _), httpx.AsyncClient() as client:
        url, headers = f"{running.url}/api/sse", bearer(token("ann"))
        assert (await client.head(url)).status_code == 401
        assert (await client.head(f"{url}?topic=a", headers=headers)).status_code == 403
        assert (await client.head(url, headers=headers)).status_code == 200


@BOTH_PATHS
async def test_an_id_that_was_made_is_its_subjects_alone(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, _):
        async with open_stream(running.url, None, bearer(token("ann"))) as stream:
            made = (await stream.connected())["client_id"]
        async with open_stream(running.url, {"client_id": made}, bearer(token("ann", client="ann-laptop"))) as stream:
            assert (await stream.connected())["client_id"] == made
        async with open_stream(running.url, None, bearer(token("ann", client="ann-laptop"))) as stream:
            assert (await stream.connected())["client_id"] == "ann-laptop"
        for other in ({"client_id": made}, {"client_id": "ann-laptop"}, {"client_id": "mine"}):
            problem = await refused(running, "", bearer(token("bob")), body=other)
            assert (problem["status"], problem["needed"]) == (403, f"subscribe client:{other['client_id']}")
            query = f"?client_id={other['client_id']}"
            assert (await refused(running, query, bearer(token("bob"))))["status"] == 403
            assert (await refused(running, query, bearer(token("bob")), path="/api/sse/jobs/none"))["status"] == 403


@BOTH_PATHS
async def test_a_grant_names_users_and_clients(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, _):
        headers = bearer(token("ann", subscribe=["user:*", "client:till"]))
        async with open_stream(running.url, {"client_id": "till", "user_id": "bob"}, headers) as stream:
            assert (await stream.connected())["listening"] == ["client:till", "user:ann", "user:bob"]


@BOTH_PATHS
async def test_who_brings_nothing_hears_what_anybody_may(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams, auth_anonymous=("broadcast", "topic:public.>")) as (running, bus):
        async with open_stream(running.url, {"topic": "public.a"}) as stream:
            told = await stream.connected()
            made = told["client_id"]
            assert told["listening"] == ["broadcast", f"client:{made}", "topic:public.a"]
            last = topic_tail("public.a")
            assert await heard(stream, bus, [user_tail("ann"), "broadcast"], last) == ["broadcast", last]
        async with open_stream(running.url, {"client_id": made}) as stream:
            assert (await stream.connected())["client_id"] == made, "it may come back"
        for query in ("?topic=prices", "?user_id=ann", "?client_id=mine"):
            problem = await refused(running, query, {})
            assert (problem["status"], problem["reason"]) == (401, "missing")
            assert problem["needed"].startswith("subscribe ")
        assert (await refused(running, "", {}, path="/api/sse/jobs/none"))["status"] == 401
        assert (await refused(running, f"?client_id={made}", bearer(token("ann"))))["status"] == 403


@BOTH_PATHS
async def test_a_page_of_another_origin_may_bring_its_token_and_read_what_is_wrong_with_it(
    tmp_path: Path, streams: str
) -> None:
    origin = "https://app.example"
    async with asked(tmp_path, streams=streams, cors_origins=(origin,)) as (running, _), httpx.AsyncClient() as client:
        wish = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,last-event-id"}
        for path in ("/api/sse", "/api/sse/jobs/none"):
            allowed = await client.options(f"{running.url}{path}", headers={"Origin": origin, **wish})
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == origin
            for headers, status in (({}, 401), (bearer("none"), 401), (bearer(token("ann")), 403)):
                url = f"{running.url}{path}?client_id=bob"
                refused = await client.get(url, headers={"Origin": origin, **headers})
                assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (status, origin)


@BOTH_PATHS
async def test_no_stream_opens_without_a_token(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, _):
        for path, body in (("/api/sse", None), ("/api/sse", {}), ("/api/sse/jobs/none", None)):
            for headers, reason in (({}, "missing"), (bearer(token("ann", seconds=-60)), "expired")):
                problem = await refused(running, "", headers, body=body, path=path)
                assert (problem["status"], problem["reason"]) == (401, reason)
