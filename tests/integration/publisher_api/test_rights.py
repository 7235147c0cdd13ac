"""Who may publish, ask who is there, end connections, and see dead jobs. A refused request does nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import broker
from tests.support.identity import AUTH, bearer, token
from tests.support.publisher import running_publisher
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History

EVENT: dict[str, Any] = {"event_type": "note", "data": 1}
NDJSON = {"content-type": "application/x-ndjson"}


@asynccontextmanager
async def publisher(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Bus]]:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **AUTH, **settings) as found:
        yield found


async def stored(bus: Bus) -> int:
    return (await History(bus).position()).last


def needed(answer: httpx.Response) -> str:
    assert answer.status_code == 403, answer.text
    body = answer.json()
    assert body["type"] == "urn:tidegate:problem:forbidden"
    return str(body["needed"])


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(
    ("target", "grant", "others"),
    [
        (
            {"topic": "room.7.chat"},
            "topic:room.7.>",
            ["topic:room.*", "topic:room.7", "topic:room", "user:room.7.chat"],
        ),
        ({"user_id": "bob"}, "user:bob", ["user:ann", "client:bob", "topic:bob", "broadcast", "topic:>"]),
        ({"user_id": "bob"}, "user:*", ["client:*"]),
        ({"client_id": "a.b"}, "client:a.b", ["client:a", "client:a%2Eb", "user:*"]),
        ({"client_id": "x"}, "client:*", ["user:*", "broadcast"]),
        ({"topic": "caf\u00e9"}, "topic:caf\u00e9", ["topic:cafe\u0301", "topic:caf\ufffd", "topic:caf\u00c9"]),
        ({"topic": "a%2Eb"}, "topic:a%2Eb", ["topic:a.b", "topic:a.*"]),
    ],
)
async def test_an_event_needs_a_grant_that_covers_its_target(
    tmp_path: Path, target: dict[str, str], grant: str, others: list[str], durable: bool
) -> None:
    async with publisher(tmp_path) as (api, bus):
        body = {**EVENT, **target, "durable": durable}
        # The right to listen is none to publish, not even to oneself.
        asked = token("bob", subscribe=[grant], publish=others)
        refused = await api.post("/api/sse/send", json=body, headers=bearer(asked))
        ((kind, name),) = target.items()
        assert needed(refused) == f"publish {kind.removesuffix('_id')}:{name}"
        assert await stored(bus) == 0
        good = await api.post("/api/sse/send", json=body, headers=bearer(token("bob", publish=[grant])))
        assert good.status_code == 202, good.text
        assert await stored(bus) == durable


async def test_a_broadcast_needs_its_own_grant(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus):
        wide = token("ann", publish=["topic:>", "user:*", "client:*", "jobs:*"])
        assert needed(await api.post("/api/sse/broadcast", json=EVENT, headers=bearer(wide))) == "publish broadcast"
        assert await stored(bus) == 0
        good = token("ann", publish=["broadcast"])
        assert (await api.post("/api/sse/broadcast", json=EVENT, headers=bearer(good))).status_code == 202


async def test_a_batch_is_asked_for_its_rights_line_by_line(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus):
        lines = [
            {**EVENT, "topic": "mine.1"},
            {**EVENT, "topic": "other"},
            {**EVENT, "broadcast": True},
            {**EVENT, "topic": "mine.2", "ttl": 0},
            {**EVENT, "topic": "mine.3"},
            {**EVENT, "user_id": "bob", "durable": False},
        ]
        asked = token("ann", publish=["topic:mine.*"])
        answer = await api.post(
            "/api/sse/batch", content="\n".join(map(json.dumps, lines)), headers={**NDJSON, **bearer(asked)}
        )
        assert answer.status_code == 200
        found = answer.json()
        assert (found["accepted"], found["refused"]) == (2, 4)
        assert [each["status"] for each in found["results"]] == [202, 403, 403, 422, 202, 403]
        assert [each.get("needed") for each in found["results"]] == [
            None,
            "publish topic:other",
            "publish broadcast",
            None,
            None,
            "publish user:bob",
        ]
        assert await stored(bus) == 2


async def test_a_field_at_fault_is_told_before_a_right_that_is_missing(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, _):
        asked = bearer(token("ann"))
        for body in ({**EVENT, "topic": "a.*"}, {**EVENT, "topic": "a", "ttl": 0}, {**EVENT, "topic": "a", "x": 1}):
            assert (await api.post("/api/sse/send", json=body, headers=asked)).status_code == 422
        assert (await api.post("/api/sse/send", content=b"{", headers={**asked, **NDJSON})).status_code == 415
        assert (await api.get("/api/ai/dead", params={"limit": "0"}, headers=asked)).status_code == 422


async def test_whoever_brings_nothing_and_may_listen_is_asked_who_they_are_to_publish(tmp_path: Path) -> None:
    async with publisher(tmp_path, auth_anonymous=("topic:>", "broadcast")) as (api, bus):
        answer = await api.post("/api/sse/send", json={**EVENT, "topic": "a"})
        assert answer.status_code == 401
        assert answer.json()["needed"] == "publish topic:a"
        assert answer.headers["www-authenticate"] == 'Bearer realm="tidegate"'
        assert await stored(bus) == 0


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/api/presence/clients/ann", "presence"),
        ("GET", "/api/presence/users/ann", "presence"),
        ("GET", "/api/presence/topics/a.b", "presence"),
        ("DELETE", "/api/presence/clients/ann", "kick"),
        ("DELETE", "/api/presence/users/ann", "kick"),
        ("GET", "/api/ai/dead", "dead"),
        ("GET", "/api/ai/dead/none", "dead"),
        ("DELETE", "/api/ai/dead/none", "dead"),
        ("POST", "/api/ai/dead/none/retry", "dead"),
    ],
)
async def test_an_admins_call_needs_the_right_of_that_name(tmp_path: Path, method: str, path: str, right: str) -> None:
    everything_else = ["presence", "kick", "dead", "revoke", "events", "ops", "metrics"]
    everything_else.remove(right)
    async with publisher(tmp_path) as (api, _):
        body: dict[str, Any] | None = {} if method == "POST" else None
        asked = token("ann", admin=everything_else, publish=["user:*", "client:*", "topic:>", "broadcast", "jobs:*"])
        assert needed(await api.request(method, path, headers=bearer(asked), json=body)) == f"admin {right}"
        answer = await api.request(method, path, headers=bearer(token("ann", admin=[right])), json=body)
        assert answer.status_code in (200, 404), answer.text


async def test_a_receipt_needs_the_right_to_publish_alone(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, _):
        asked = token("ann", publish=["topic:a"])
        body = {**EVENT, "topic": "a", "receipt": True}
        answer = await api.post("/api/sse/send", json=body, headers=bearer(asked))
        assert (answer.status_code, answer.json()["delivered"]) == (202, 0)


async def test_a_key_of_one_principal_is_not_anothers(tmp_path: Path) -> None:
    """Whoever guesses another's Idempotency-Key learns nothing, and takes nothing from them."""
    async with publisher(tmp_path) as (api, bus):
        body = {**EVENT, "topic": "a"}
        ann, bob = (bearer(token(name, publish=["topic:a"])) for name in ("ann", "bob"))
        key = {"Idempotency-Key": "k"}
        first = await api.post("/api/sse/send", json=body, headers={**ann, **key})
        again = await api.post("/api/sse/send", json=body, headers={**ann, **key})
        assert (first.json()["id"], True) == (again.json()["id"], again.json()["duplicate"])
        other = await api.post("/api/sse/send", json={**body, "data": 2}, headers={**ann, **key})
        assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
        foreign = await api.post("/api/sse/send", json={**body, "data": 2}, headers={**bob, **key})
        assert foreign.status_code == 202
        assert foreign.json()["id"] != first.json()["id"]
        assert await stored(bus) == 2
