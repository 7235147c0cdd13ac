"""Whoever may do nothing any more when their body is there has done nothing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from publisher_api.app import Built
from tests.support.bus import broker
from tests.support.identity import AUTH, bearer, token
from tests.support.publisher import built_publisher
from tests.support.signing import claims, jwks, new_key, signed
from tests.support.waiting import until
from tidegate_common.auth.keyset import read_jwks
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.queue_info import stream_state

EVENT = {"event_type": "n", "data": 1, "topic": "a"}
KEY = "tgk_shop_" + "A" * 43
CALLS: dict[str, Any] = {
    "/api/sse/send": EVENT,
    "/api/sse/batch": EVENT,
    "/api/ai/chat": {"prompt": "hi"},
    "/api/auth/revocations": {"sub": "bob"},
    "/api/auth/tickets": {},
}
CLAIMS: dict[str, Any] = {"publish": ["topic:a"], "jobs": {}, "admin": ["revoke"]}


async def slowly(body: bytes, built: Built, meanwhile: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    begun, results = time.monotonic(), built.identity.authenticator.results
    before = results["ok"]
    yield body[:5]
    await until(lambda: results["ok"] > before, "it is known who asks")
    await meanwhile()
    await until(lambda: time.monotonic() - begun > 0.6, "that was slow")
    yield body[5:]


async def send(
    api: httpx.AsyncClient, built: Built, path: str, who: str, meanwhile: Callable[[], Awaitable[None]]
) -> httpx.Response:
    media = "application/x-ndjson" if path.endswith("batch") else "application/json"
    body = slowly(json.dumps(CALLS[path]).encode(), built, meanwhile)
    return await api.post(path, content=body, headers={**bearer(who), "content-type": media})


@pytest.mark.parametrize("path", CALLS)
async def test_a_token_that_ends_or_is_revoked_while_the_body_comes_does_nothing(tmp_path: Path, path: str) -> None:
    settings = {**AUTH, "auth_leeway_seconds": 0}
    async with broker(tmp_path) as (server, _), built_publisher(server.url, **settings) as (api, bus, built):
        revocations = built.identity.revocations

        async def nothing() -> None:
            pass

        async def revoke() -> None:
            await revocations.revoke("sub", "ann")

        ends = time.time() + 1

        async def end() -> None:
            await until(lambda: time.time() > ends, "the token has ended")

        short = await send(api, built, path, token("ann", exp=ends, **CLAIMS), end)
        assert (short.status_code, short.json()["reason"]) == (401, "expired")
        revoked = await send(api, built, path, token("ann", **CLAIMS), revoke)
        assert (revoked.status_code, revoked.json()["reason"]) == (401, "revoked")
        assert (await History(bus).position()).last == 0
        assert (await stream_state(bus, ">")).messages == 0
        assert revocations.latest(9)[1] == 1
        good = await send(api, built, path, token("bob", **CLAIMS), nothing)
        assert good.status_code in (200, 201, 202), good.text


async def test_a_token_whose_key_was_withdrawn_while_the_body_came_does_nothing(tmp_path: Path) -> None:
    key, other = new_key("ES256"), new_key("ES256")
    async with broker(tmp_path) as (server, _), built_publisher(server.url, **AUTH) as (api, bus, built):
        tokens = built.identity.authenticator.tokens
        tokens.use(read_jwks(jwks(("a", key))))

        async def withdraw() -> None:
            tokens.use(read_jwks(jwks(("b", other))))

        told = claims(tidegate={"publish": ["topic:a"]})
        answer = await send(api, built, "/api/sse/send", signed(told, {"alg": "ES256", "kid": "a"}, key), withdraw)
        assert (answer.status_code, answer.json()["reason"]) == (401, "kid")
        assert (await History(bus).position()).last == 0


async def test_a_key_that_is_gone_when_the_body_is_there_does_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file.write_text(f'[[key]]\nid = "shop"\nsha256 = "{digest}"\npublish = ["topic:>"]\n')
    settings = {**AUTH, "api_keys_file": str(file)}
    async with broker(tmp_path) as (server, _), built_publisher(server.url, **settings) as (api, bus, built):
        keys = built.identity.authenticator.keys
        assert keys is not None

        async def take_back() -> None:
            keys.use({})

        answer = await send(api, built, "/api/sse/send", KEY, take_back)
        assert (answer.status_code, answer.json()["reason"]) == (401, "revoked")
        assert (await History(bus).position()).last == 0
