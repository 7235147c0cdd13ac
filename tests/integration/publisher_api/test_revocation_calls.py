"""Revoking over HTTP, with a gateway beside it that refuses whom it named."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import SUBJECTS, broker
from tests.support.gateway import running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.nats import NatsServer
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.contract.revocation import key_of

PATH = "/api/auth/revocations"


def admin() -> dict[str, str]:
    return bearer(token("root", admin=["revoke"]))


@asynccontextmanager
async def publisher(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Bus, NatsServer]]:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **AUTH) as (api, bus):
        yield api, bus, server


@pytest.mark.parametrize(
    ("named", "claims"),
    [({"sub": "ann"}, {}), ({"jti": "t1"}, {"jti": "t1"}), ({"client_id": "laptop"}, {"client": "laptop"})],
)
async def test_every_service_refuses_what_was_revoked_until_it_is_taken_back(
    tmp_path: Path, named: dict[str, str], claims: dict[str, Any]
) -> None:
    async with publisher(tmp_path) as (api, _, server), running_gateway(server.url, **AUTH) as gateway:
        asked = bearer(token("ann", subscribe=["topic:a"], publish=["topic:a"], **claims))

        async def connects() -> int:
            async with api.stream("GET", f"{gateway.url}/api/sse", headers=asked) as answer:
                return answer.status_code

        async def sends() -> httpx.Response:
            event = {"topic": "a", "event_type": "n", "data": 1}
            return await api.post("/api/sse/send", json=event, headers=asked)

        assert (await sends()).status_code == 202
        assert await connects() == 200
        revoked = await api.post(PATH, json=named, headers=admin())
        assert revoked.status_code == 200, revoked.text
        assert named.items() <= revoked.json().items()
        # A token may be issued ten seconds ahead, for a day, and is good for ten seconds more.
        assert round(revoked.json()["until"] - revoked.json()["at"]) == 86_420
        refused = await sends()
        assert (refused.status_code, refused.json()["reason"]) == (401, "revoked")
        assert 'error_description="revoked"' in refused.headers["www-authenticate"]
        heard = gateway.gateway.identity.revocations
        await until(lambda: heard.latest(1)[1] == 1, "the gateway knows")
        assert await connects() == 401
        assert (await api.delete(PATH, params=named, headers=admin())).status_code == 204
        assert (await sends()).status_code == 202
        await until(lambda: heard.latest(1)[1] == 0, "the gateway knows")
        assert await connects() == 200


async def test_a_key_is_revoked_by_its_id_without_an_end(tmp_path: Path) -> None:
    key = "tgk_shop_" + "A" * 43
    file = tmp_path / "keys.toml"
    digest = hashlib.sha256(key.encode()).hexdigest()
    file.write_text(f'[[key]]\nid = "shop"\nsha256 = "{digest}"\nadmin = ["dead"]\n')
    settings = {**AUTH, "api_keys_file": str(file)}
    async with broker(tmp_path) as (server, _), running_publisher(server.url, **settings) as (api, _):
        assert (await api.get("/api/ai/dead", headers=bearer(key))).status_code == 200
        revoked = await api.post(PATH, json={"key": "shop"}, headers=admin())
        assert revoked.json()["until"] is None
        refused = await api.get("/api/ai/dead", headers=bearer(key))
        assert (refused.status_code, refused.json()["reason"]) == (401, "revoked")
        assert (await api.get("/api/ai/dead", headers=bearer(token("shop", admin=["dead"])))).status_code == 200


async def test_a_token_that_was_issued_since_is_good(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, _, _):
        now = int(time.time())
        old, new = (bearer(token("ann", admin=["dead"], iat=when, exp=now + 60)) for when in (now - 10, now - 4))
        await api.post(PATH, json={"sub": "ann", "before": now - 5}, headers=admin())
        assert (await api.get("/api/ai/dead", headers=old)).status_code == 401
        assert (await api.get("/api/ai/dead", headers=new)).status_code == 200


async def test_the_list_shows_the_newest_and_how_many_there_are(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, _, _):
        for number in range(5):
            await api.post(PATH, json={"sub": f"user {number}"}, headers=admin())
        key = await api.post(PATH, json={"key": "shop"}, headers=admin())
        assert key.json() | {"before": None, "until": None} == key.json()
        found = (await api.get(PATH, params={"limit": "2"}, headers=admin())).json()
        assert found["total"] == 6
        assert [each.get("key") or each["sub"] for each in found["revocations"]] == ["shop", "user 4"]
        one = (await api.get(PATH, params={"sub": "user 2"}, headers=admin())).json()
        assert (one["total"], one["revocations"][0]["sub"]) == (1, "user 2")
        assert (await api.get(PATH, params={"sub": "nobody"}, headers=admin())).json() == {
            "revocations": [],
            "total": 0,
        }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "sub"),
        ({"sub": "ann", "key": "shop"}, "sub"),
        ({"sub": ""}, "sub"),
        ({"jti": "x" * 1001}, "jti"),
        ({"jti": 7}, "jti"),
        ({"sub": "ann", "before": 0}, "before"),
        ({"sub": "ann", "before": 1e12}, "before"),
        ({"key": "shop", "before": 1.0}, "before"),
        ({"jti": "t1", "before": 1.0}, "before"),
        ({"subject": "ann"}, "subject"),
    ],
)
async def test_what_can_not_be_meant_is_refused_and_revokes_nothing(
    tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    async with publisher(tmp_path) as (api, _, _):
        answer = await api.post(PATH, json=body, headers=admin())
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert (await api.get(PATH, headers=admin())).json()["total"] == 0


async def test_taking_back_needs_one_name_that_is_there(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, _, _):
        await api.post(PATH, json={"sub": "ann"}, headers=admin())
        for query, status in (
            ("", 422),
            ("sub=ann&key=shop", 422),
            ("sub=ann&sub=bob", 422),
            ("sub=ann&limit=1", 422),
            ("user=ann", 422),
            ("sub=bob", 404),
            ("key=ann", 404),
        ):
            assert (await api.delete(f"{PATH}?{query}", headers=admin())).status_code == status, query
        assert (await api.post(f"{PATH}?sub=bob", json={"sub": "ann"}, headers=admin())).status_code == 422
        assert (await api.get(PATH, headers=admin())).json()["total"] == 1


async def test_only_who_may_revoke_revokes_lists_and_takes_back(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus, _):
        await api.post(PATH, json={"sub": "ann"}, headers=admin())
        others = ["presence", "kick", "dead", "events", "ops", "metrics"]
        eve = bearer(token("eve", admin=others, subscribe=["jobs:*"], publish=["jobs:*", "topic:>"]))
        for method, params, body in (
            ("POST", None, {"sub": "root"}),
            ("GET", None, None),
            ("DELETE", {"sub": "ann"}, None),
        ):
            refused = await api.request(method, PATH, params=params, json=body, headers=eve)
            assert (refused.status_code, refused.json()["needed"]) == (403, "admin revoke")
        bucket = Bucket(bus, SUBJECTS.revoked_bucket)
        assert await bucket.get(key_of("sub", "root")) is None
        entry = await bucket.get(key_of("sub", "ann"))
        assert entry is not None
        assert entry.value


async def test_while_nats_is_away_nothing_is_said_to_be_revoked(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (api, bus, server):
        asked = admin()
        assert (await api.post(PATH, json={"sub": "ann"}, headers=asked)).status_code == 200
        server.run.process.kill()
        await until(lambda: not bus.connected, "NATS is gone")
        assert (await api.post(PATH, json={"sub": "bob"}, headers=asked)).status_code == 503
        assert (await api.delete(PATH, params={"sub": "ann"}, headers=asked)).status_code == 503
        listed = (await api.get(PATH, headers=asked)).json()
        assert [each["sub"] for each in listed["revocations"]] == ["ann"]


async def test_in_the_mode_open_there_is_nothing_to_revoke(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (api, _):
        assert (await api.get(PATH)).status_code == 404
