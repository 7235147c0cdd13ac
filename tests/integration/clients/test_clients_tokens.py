"""Both clients on a real gateway whose tokens end, and are taken away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_worker.models.scripted import ANSWERS
from gateway.hub.endings import Ending
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.identity import AUTH, SECRET, bearer, token
from tests.support.nats import nats_server
from tests.support.npm import needs
from tests.support.processes import running
from tests.support.publisher import running_publisher
from tests.support.stack import stack
from tests.support.waiting import until
from tidegate import Refused, State, connect

SETTINGS = {**AUTH, "auth_leeway_seconds": 0}
SCRIPT = Path(__file__).with_name("listen.mjs")


@asynccontextmanager
async def services(tmp_path: Path) -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient]]:
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, **SETTINGS) as (publisher, _),
        running_gateway(nats.url, **SETTINGS) as gateway,
    ):
        publisher.headers.update(bearer(token("service", publish=["topic:a"])))
        yield gateway, publisher


async def send(publisher: httpx.AsyncClient, number: int) -> None:
    event = {"topic": "a", "event_type": "note", "data": str(number)}
    answer = await publisher.post("/api/sse/send", json=event)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("told", [True, False], ids=["told before", "told by the end"])
async def test_tokens_of_a_few_seconds_are_renewed_and_nothing_is_lost_or_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr("gateway.hub.expiry.NOTICE_SECONDS", 2 if told else 60)
    monkeypatch.setattr("gateway.hub.expiry.NOTICE_SPREAD_SECONDS", 0)
    monkeypatch.setattr("tidegate.stream.PROVEN_SECONDS", 0.5)
    got: list[str] = []
    ends: list[str] = []
    asked: list[None] = []

    async def fresh() -> str:
        asked.append(None)
        return token("ann", seconds=4, subscribe=["topic:a"], jti=str(len(asked)))

    async with services(tmp_path) as (gateway, publisher):
        async with connect(f"{gateway.url}/api/sse", topics="a", token=fresh) as stream:

            async def read() -> None:
                async for event in stream:
                    if event.type == "note":
                        got.append(event.data)
                    elif event.type not in ("connected", "expiring"):
                        ends.append(f"{event.type} {event.data}")

            reading = asyncio.create_task(read())
            await until(lambda: stream.listening, "the stream is open")
            sent = 0
            while len(asked) < 3:
                await send(publisher, sent)
                sent += 1
            await until(lambda: len(got) >= sent, "all events have come", 20)
            reading.cancel()
            await asyncio.wait([reading])
    assert got == [str(number) for number in range(sent)]
    assert all("token_expired" in end for end in ends)
    assert bool(ends) is not told


async def test_a_revoked_user_is_sent_away_and_refused_afterwards(tmp_path: Path) -> None:
    states: list[State] = []
    async with services(tmp_path) as (gateway, publisher):
        url = f"{gateway.url}/api/sse"
        own = token("ann", subscribe=["topic:a"])
        async with connect(url, topics="a", token=lambda: own, on_state=states.append) as stream:
            await anext(stream)
            await gateway.revoke("sub", "ann", before=2_000_000_000)
            await send(publisher, 1)
            closing = [event async for event in stream]
        assert [(event.json()["reason"], event.json()["reconnect"]) for event in closing] == [("revoked", False)]
        assert [state.name for state in states] == ["connecting", "open", "closed"]
        async with connect(url, topics="a", token=lambda: own, last_event_id=stream.last_event_id) as stream:
            with pytest.raises(Refused) as refused:
                await anext(stream)
        assert (refused.value.status, refused.value.reason) == (401, "revoked")


async def test_what_a_token_does_not_grant_is_told_with_the_right(tmp_path: Path) -> None:
    async with services(tmp_path) as (gateway, _):
        async with connect(f"{gateway.url}/api/sse", topics=["prices.>"], token=token("ann")) as stream:
            with pytest.raises(Refused) as refused:
                await anext(stream)
    assert (refused.value.status, refused.value.type) == (403, "urn:tidegate:problem:forbidden")
    assert refused.value.needed == "subscribe topic:prices.>"


async def test_a_job_is_watched_over_the_end_of_its_owners_tokens(tmp_path: Path) -> None:
    env = {
        "TIDEGATE_AUTH": "token",
        "TIDEGATE_AUTH_SECRET": SECRET.replace(",", ""),
        "TIDEGATE_AUTH_LEEWAY_SECONDS": "0",
        "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.05",
    }
    asked: list[None] = []

    def fresh() -> str:
        asked.append(None)
        return token("ann", seconds=2, secret=env["TIDEGATE_AUTH_SECRET"], jobs={}, jti=str(len(asked)))

    async with stack(tmp_path, env) as running_stack, httpx.AsyncClient(headers=bearer(fresh())) as http:
        job = (await http.post(f"{running_stack.publisher}/api/ai/chat", json={"prompt": "Hello"})).json()
        text, ends = "", []
        async with connect(running_stack.gateways[0] + job["stream"], token=fresh) as watching:
            async for event in watching:
                if event.type == "ai_response":
                    text += json.loads(event.data)["content"]
                elif event.type == "closing":
                    ends.append(event.json()["reason"])
    assert text == ANSWERS["en"]
    assert ends[-1] == "done"
    assert "token_expired" in ends


async def test_a_client_whose_user_changes_leaves_the_id_that_was_made_for_the_other(tmp_path: Path) -> None:
    """It was refused for ever: an id that was made for one user is none of another's."""
    users = iter(["ann"])
    async with services(tmp_path) as (gateway, _):
        async with connect(f"{gateway.url}/api/sse", token=lambda: token(next(users, "bob"))) as stream:
            anns = (await anext(stream)).json()
            end_all(gateway)
            assert (await anext(stream)).type == "closing"
            bobs = (await anext(stream)).json()
    assert bobs["listening"] == [f"client:{bobs['client_id']}", "user:bob"]
    assert bobs["client_id"] != anns["client_id"]


async def test_an_id_that_the_application_names_is_not_left(tmp_path: Path) -> None:
    async with services(tmp_path) as (gateway, _):
        async with connect(f"{gateway.url}/api/sse", client_id="anns", token=token("bob")) as stream:
            with pytest.raises(Refused) as refused:
                await anext(stream)
    assert refused.value.needed == "subscribe client:anns"


def end_all(gateway: RunningGateway) -> None:
    for session in list(gateway.gateway.hub.sessions):
        gateway.gateway.hub.end(session, Ending.MAX_AGE)


async def test_a_javascript_client_whose_user_changes_leaves_the_id_too(tmp_path: Path) -> None:
    needs("node")
    async with services(tmp_path) as (gateway, _):
        arguments = (f"{gateway.url}/api/sse", SECRET, "600", "ann,bob")
        async with running("node", str(SCRIPT), *arguments) as node:

            def connected() -> list[dict[str, Any]]:
                lines = [json.loads(line) for line in node.output]
                return [json.loads(line["data"]) for line in lines if line.get("type") == "connected"]

            await until(lambda: len(connected()) == 1, "ann's stream is open")
            end_all(gateway)
            await until(lambda: len(connected()) == 2, "bob's stream is open", 20)
            anns, bobs = connected()
    assert bobs["listening"] == [f"client:{bobs['client_id']}", "user:bob", "topic:a"]
    assert bobs["client_id"] != anns["client_id"]


async def test_the_javascript_client_too_is_renewed_and_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("node")
    monkeypatch.setattr("gateway.hub.expiry.NOTICE_SPREAD_SECONDS", 0)
    monkeypatch.setattr("gateway.hub.expiry.NOTICE_SECONDS", 4)
    async with services(tmp_path) as (gateway, publisher):
        # Its connections have to be ten seconds old before it looks for another token.
        async with running("node", str(SCRIPT), f"{gateway.url}/api/sse", SECRET, "16") as node:
            lines: list[dict[str, Any]] = []

            def read() -> list[dict[str, Any]]:
                lines.extend(json.loads(line) for line in node.output[len(lines) :])
                return lines

            def count(**facts: str) -> int:
                return sum(line.items() >= facts.items() for line in read())

            await until(lambda: count(type="connected") == 1, "the stream is open")
            sent = 0
            while count(type="connected") < 2:
                await send(publisher, sent)
                sent += 1
            await until(lambda: count(type="note") >= sent, "all events have come", 20)
            await gateway.revoke("sub", "ann", before=2_000_000_000)
            await until(lambda: count(state="closed") == 1, "it has been sent away")
    assert [line["data"] for line in lines if line.get("type") == "note"] == [str(number) for number in range(sent)]
    assert [line["state"] for line in lines if "state" in line] == [
        *("connecting", "open", "connecting", "open", "closed")
    ]
    kinds = [line["type"] for line in lines if line.get("type", "note") != "note"]
    assert kinds == ["connected", "expiring", "connected", "closing"]
