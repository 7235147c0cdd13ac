"""What brings a stream its principal, on both ways to the socket: bearer, cookie, key of a provider, nothing."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import RunningGateway, open_stream, running_gateway
from tests.support.identity import AUTH, SECRET, bearer, token
from tests.support.nats import nats_server
from tests.support.provider import provider
from tests.support.signing import claims, jwks, new_key, signed
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.contract.subjects import client_tail, user_tail

COOKIE = "__Host-tidegate"
ISSUER = "https://id.example"
KEY, OTHER_KEY = new_key("ES256"), new_key("EdDSA")
BY_KEY = signed(claims(iss=ISSUER), {"alg": "ES256", "kid": "a"}, KEY)
BY_OTHER = signed(claims(iss=ISSUER), {"alg": "EdDSA", "kid": "b"}, OTHER_KEY)
PAGE = {"Sec-Fetch-Site": "same-origin"}


async def status(
    running: RunningGateway, *headers: tuple[str, str], path: str = "/api/sse"
) -> tuple[int, dict[str, Any]]:
    """What is answered, and the problem. A stream is let go at once."""
    async with (
        httpx.AsyncClient() as client,
        client.stream("GET", f"{running.url}{path}", headers=list(headers)) as response,
    ):
        if response.status_code == 200:
            return 200, {}
        problem = json.loads(await response.aread())
        return response.status_code, {**problem, "challenge": response.headers.get("www-authenticate")}


@BOTH_PATHS
async def test_a_cookie_opens_a_stream_for_our_own_pages(tmp_path: Path, streams: str) -> None:
    settings = {**AUTH, "auth_cookie": COOKIE, "cors_origins": ("https://app.example", "*")}
    cookie = ("Cookie", f"a=b; {COOKIE}={token('ann')}")
    async with nats_server(tmp_path) as nats, running_gateway(nats.url, streams=streams, **settings) as running:
        for good in (("Sec-Fetch-Site", "same-origin"), ("Origin", running.url), ("Origin", "https://app.example")):
            assert (await status(running, cookie, good))[0] == 200
        for bad in (("Accept", "*/*"), ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")):
            code, problem = await status(running, cookie, bad)
            assert (code, problem["needed"]) == (403, "origin")
        assert (await status(running, cookie, cookie, ("Sec-Fetch-Site", "same-origin")))[0] == 400
        bearer_of_ann = ("Authorization", f"Bearer {token('ann')}")
        assert (await status(running, cookie, bearer_of_ann))[0] == 200
        code, problem = await status(running, cookie, ("Sec-Fetch-Site", "same-origin"), ("Authorization", "Bearer x"))
        assert (code, problem["reason"]) == (401, "malformed")
        await until(lambda: not running.gateway.hub.sessions, "the streams are gone")


@BOTH_PATHS
@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        ([], 401, "missing"),
        ([("Cookie", f"{COOKIE}={token('ann')}")], 401, "missing"),  # no cookie is read unless it has a name
        ([("Authorization", f"Bearer {token('ann', seconds=-60)}")], 401, "expired"),
        ([("Authorization", f"Bearer {token('ann', secret='x' * 40)}")], 401, "signature"),
        ([("Authorization", f"Bearer {token('ann', aud='other')}")], 401, "audience"),
        ([("Authorization", f"Bearer {token('ann', iat=4e9)}")], 401, "early"),
        ([("Authorization", f"Bearer {signed(claims(), {'alg': 'none'})}")], 401, "algorithm"),
        ([("Authorization", f"Bearer {BY_KEY}")], 401, "kid"),
        ([("Authorization", "Bearer " + "x" * 9000)], 401, "malformed"),
        ([("Authorization", f"Bearer tgk_shop_{'s' * 43}")], 401, "unknown"),
        ([("Authorization", f"Bearer {token('ann')}")] * 2, 400, None),
        ([("Authorization", "Basic YTpi")], 400, None),
    ],
)  # fmt: skip
async def test_a_refusal_says_why(
    tmp_path: Path, streams: str, headers: list[tuple[str, str]], code: int, reason: str | None
) -> None:
    async with nats_server(tmp_path) as nats, running_gateway(nats.url, streams=streams, **AUTH) as running:
        found, problem = await status(running, *headers)
        assert (found, problem.get("reason")) == (code, reason)
        if reason == "missing":
            assert problem["challenge"] == 'Bearer realm="tidegate"'
        elif reason is not None:
            assert (
                problem["challenge"] == f'Bearer realm="tidegate", error="invalid_token", error_description="{reason}"'
            )
        counted = reason or "malformed"
        assert running.gateway.identity.authenticator.results[counted] == 1
        assert not running.gateway.hub.sessions


@BOTH_PATHS
async def test_keys_come_from_a_provider_and_streams_end_with_them(tmp_path: Path, streams: str) -> None:
    async with provider() as idp, nats_server(tmp_path) as nats:
        idp.serve(jwks(("a", KEY)))
        settings = {"auth": "token", "auth_jwks_url": idp.url, "auth_issuer": ISSUER}
        async with running_gateway(nats.url, streams=streams, **settings) as running:
            async with open_stream(running.url, headers=bearer(BY_KEY)) as stream:
                await stream.connected()
                assert (await status(running, ("Authorization", f"Bearer {BY_OTHER}")))[1]["reason"] == "kid"
                keys = running.gateway.identity.authenticator.jwks
                assert keys is not None
                idp.serve(jwks(("a", KEY), ("b", OTHER_KEY)))
                await keys.refresh()
                async with open_stream(running.url, headers=bearer(BY_OTHER)) as other:
                    await other.connected()
                    idp.serve(jwks(("b", OTHER_KEY)))
                    await keys.refresh()
                    closing = json.loads((await stream.next("closing")).data)
                    assert (closing["reason"], closing["reconnect"]) == ("token_expired", True)
                    assert (await status(running, ("Authorization", f"Bearer {BY_KEY}")))[1]["reason"] == "kid"
                    assert not other.ended


@BOTH_PATHS
async def test_a_ticket_ends_with_the_key_that_its_token_was_signed_with(tmp_path: Path, streams: str) -> None:
    """A key that was stolen is taken back: what was made with it must not live on as tickets. A secret is not kept."""
    async with provider() as idp, nats_server(tmp_path) as nats:
        idp.serve(jwks(("a", KEY), ("b", OTHER_KEY)))
        settings = {**AUTH, "auth_jwks_url": idp.url, "auth_issuer": ISSUER}
        async with running_gateway(nats.url, streams=streams, **settings) as running:
            identity = running.gateway.identity
            tickets = []
            for text in (BY_KEY, BY_OTHER, signed(claims(iss=ISSUER))):
                who = identity.authenticator.tokens.principal(text)
                client_id = identity.client_ids.make(who)
                tails = (user_tail("ann"), client_tail(client_id))
                tickets.append((await identity.tickets.issue(who, client_id=client_id, tails=tails))[0])
                stored = await running.bus.api.message("KV_TG_TICKETS", last_by_subj="$KV.TG_TICKETS.>")
                assert stored is not None
                assert (b"signed_by" in stored.payload) == (len(tickets) < 3)
            async with AsyncExitStack() as stack:
                opened = [
                    await stack.enter_async_context(open_stream(running.url, {"ticket": each})) for each in tickets
                ]
                for stream in opened:
                    await stream.connected()
                idp.serve(jwks(("b", OTHER_KEY)))
                assert identity.authenticator.jwks is not None
                await identity.authenticator.jwks.refresh()
                closing = json.loads((await opened[0].next("closing")).data)
                assert closing["reason"] == "token_expired"
                assert not any(stream.ended for stream in opened[1:])
            assert (await status(running, path=f"/api/sse?ticket={tickets[0]}"))[1]["reason"] == "kid"
            for good in tickets[1:]:
                assert (await status(running, path=f"/api/sse?ticket={good}"))[0] == 200


async def test_a_gateway_without_its_first_keys_is_not_ready(tmp_path: Path) -> None:
    async with provider() as idp, nats_server(tmp_path) as nats, httpx.AsyncClient() as client:
        idp.serve(b"", "503 Service Unavailable")
        settings = {"auth": "token", "auth_jwks_url": idp.url, "auth_issuer": ISSUER}
        async with running_gateway(nats.url, **settings) as running:
            answer = await client.get(f"{running.url}/readyz")
            assert (answer.status_code, list(answer.json()["faults"])) == (503, ["tokens"])
            assert (await status(running, ("Authorization", f"Bearer {BY_KEY}")))[1]["reason"] == "kid"
            idp.serve(jwks(("a", KEY)))
            keys = running.gateway.identity.authenticator.jwks
            assert keys is not None
            await keys.refresh()
            assert (await client.get(f"{running.url}/readyz")).status_code == 200
            assert (await status(running, ("Authorization", f"Bearer {BY_KEY}")))[0] == 200
        idp.serve(b"", "503 Service Unavailable")
        async with running_gateway(nats.url, **settings, auth_secret=(SECRET,)) as running:
            assert (await client.get(f"{running.url}/readyz")).status_code == 200


async def test_the_metrics_tell_what_came_of_asking(tmp_path: Path) -> None:
    async with provider() as idp, nats_server(tmp_path) as nats, httpx.AsyncClient() as client:
        idp.serve(jwks(("a", KEY)))
        settings = {**AUTH, "auth_jwks_url": idp.url, "auth_issuer": ISSUER}
        async with running_gateway(nats.url, **settings) as running:
            admin = bearer(token("ops", iss=ISSUER, admin=["metrics"]))
            for _ in range(3):
                text = (await client.get(f"{running.url}/metrics", headers=admin)).text
            await client.get(f"{running.url}/metrics")
            text = (await client.get(f"{running.url}/metrics", headers=admin)).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert any(
        line.startswith("tidegate_auth_total{") and 'result="ok"' in line and line.endswith(" 4.0") for line in lines
    )
    assert any('result="missing"' in line and line.endswith(" 1.0") for line in lines)
    assert any(line.startswith("tidegate_auth_cache_hits_total") and line.endswith(" 3.0") for line in lines)
    assert any(line.startswith("tidegate_jwks_age_seconds") for line in lines)
    assert "ops" not in "".join(line for line in lines if line.startswith("tidegate_auth"))
