"""Who may ask for completions, and what OpenAI's own client makes of a refusal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from tests.integration.openai_front.support import ASK, Front, front, front_at
from tests.support.bus import broker
from tests.support.identity import AUTH, bearer, token
from tests.support.signing import claims, jwks, new_key, signed
from tests.support.waiting import until
from tests.support.working import Turn
from tidegate_common.auth.keyset import read_jwks
from tidegate_common.auth.revocations import Revocations
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.jobs import Usage

BODY: dict[str, Any] = {"model": "scripted-1", "messages": ASK}


def client_of(running: Front, key: str, max_retries: int = 0) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{running.gateway.url}/v1", api_key=key, max_retries=max_retries, timeout=20)


def ann(seconds: float = 3600, **jobs: Any) -> str:
    return token("ann", seconds=seconds, jobs=jobs)


class Pausing:
    """A script that says one word, and then waits to be cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def __call__(self, turn: Turn) -> None:
        await turn.text("Hello")
        self.begun.set()
        await asyncio.Event().wait()


async def test_without_a_good_token_nothing_below_v1_is_answered(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH) as running, httpx.AsyncClient() as http:
        with pytest.raises(openai.AuthenticationError) as refused:
            await running.client.chat.completions.create(model="scripted-1", messages=ASK)
        assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")
        for method, path in (("POST", "chat/completions"), ("GET", "models"), ("GET", "models/x"), ("GET", "nothing")):
            answer = await http.request(method, f"{running.gateway.url}/v1/{path}")
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == 'Bearer realm="tidegate"'
        expired = await http.get(f"{running.gateway.url}/v1/models", headers=bearer(ann(seconds=-60)))
        assert 'error="invalid_token", error_description="expired"' in expired.headers["www-authenticate"]
        twice = [("Authorization", f"Bearer {ann()}"), ("Authorization", f"Bearer {ann()}")]
        assert (await http.get(f"{running.gateway.url}/v1/models", headers=twice)).status_code == 400
        assert running.worker.turns == []


async def test_whoever_brings_nothing_has_no_jobs_and_is_asked_who_they_are(tmp_path: Path) -> None:
    anonymous = {**AUTH, "auth_anonymous": ("broadcast", "topic:public.>")}
    async with front(tmp_path, **anonymous) as running, httpx.AsyncClient() as http:
        for answer in (
            await http.post(f"{running.gateway.url}/v1/chat/completions", json=BODY),
            await http.get(f"{running.gateway.url}/v1/models"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert running.worker.turns == []


async def test_a_token_without_the_right_to_jobs_is_refused_and_makes_none(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH) as running:
        async with client_of(running, token("ann")) as client:
            with pytest.raises(openai.PermissionDeniedError, match="jobs") as refused:
                await client.chat.completions.create(**BODY)
            assert refused.value.code == "forbidden"
            with pytest.raises(openai.PermissionDeniedError):
                await client.models.list()
        async with client_of(running, ann(kinds=["transform"])) as client:
            with pytest.raises(openai.PermissionDeniedError, match="jobs kind chat"):
                await client.chat.completions.create(**BODY)
        assert running.worker.turns == []
        assert (await running.gateway.bus.jetstream.stream_info("KV_TG_JOBS_STATE")).state.messages == 0


async def test_a_good_token_gets_its_answer_and_owns_the_job(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH) as running, client_of(running, ann()) as client:
        answer = await client.chat.completions.create(**BODY, user="somebody")
        assert answer.choices[0].message.content == "Hello world"
        state = await running.worker.states.get(answer._request_id or "")
        assert state.owner == "user.ann", "OpenAI's `user` makes nobody another"


async def test_a_model_that_is_not_granted_is_as_one_that_there_is_not(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH) as running, client_of(running, ann(models=["scripted-1"])) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model="large", messages=ASK)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
        assert running.worker.turns == []
        await client.chat.completions.create(**BODY)


async def test_a_tokens_limit_is_sent_and_no_more_may_be_asked_for(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH) as running, client_of(running, ann(max_tokens=64)) as client:
        await client.chat.completions.create(**BODY)
        await client.chat.completions.create(**BODY, max_tokens=10)
        assert [turn.params.max_tokens for turn in running.worker.turns] == [64, 10]
        assert [turn.job.max_tokens for turn in running.worker.turns] == [64, 64]
        with pytest.raises(openai.PermissionDeniedError, match="jobs max_tokens 65"):
            await client.chat.completions.create(**BODY, max_completion_tokens=65)


async def test_a_spent_budget_is_told_once_and_not_tried_again(tmp_path: Path) -> None:
    """The client repeats a 429 by itself; with `x-should-retry: false` it does not."""
    requests = 0

    async def count(_: httpx.Request) -> None:
        nonlocal requests
        requests += 1

    async def costly(turn: Turn) -> None:
        await turn.text("Hello")
        await running.settle(turn.job.job_id, Usage(100, 64))  # before the client can ask again
        await turn.done(usage=Usage(100, 64))

    key = ann(max_tokens=64, tokens_per_day=200)
    async with front(tmp_path, costly, **AUTH) as running:
        http: Any = httpx.AsyncClient(event_hooks={"request": [count]})
        async with AsyncOpenAI(base_url=f"{running.gateway.url}/v1", api_key=key, http_client=http) as client:
            first = await client.chat.completions.with_raw_response.create(**BODY)
            assert first.headers["x-ratelimit-limit-tokens"] == "200"
            assert int(first.headers["x-ratelimit-remaining-tokens"]) < 136
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(**BODY)
            assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
            assert refused.value.response.headers["x-should-retry"] == "false"
            assert refused.value.response.headers["x-ratelimit-remaining-tokens"] == "36"
            assert requests == 2
            assert len(running.worker.turns) == 1


async def test_so_many_completions_at_once(tmp_path: Path) -> None:
    script = Pausing()
    async with front(tmp_path, script, **AUTH) as running, client_of(running, ann(concurrent=1)) as client:
        waiting = asyncio.create_task(client.chat.completions.create(**BODY))
        await script.begun.wait()
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**BODY)
        assert refused.value.code == "rate_limit_exceeded"
        assert len(running.worker.turns) == 1
        assert running.gateway.gateway.identity.limits.refused()["concurrent"] == 1
        waiting.cancel()


async def test_the_rate_of_jobs_holds_and_is_told(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH, limit_jobs="0.001/2") as running, client_of(running, ann()) as client:
        first = await client.chat.completions.with_raw_response.create(**BODY)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"].startswith("16m")
        await client.chat.completions.create(**BODY)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**BODY)
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(running.worker.turns) == 2
        async with client_of(running, token("ben", jobs={})) as other:
            await other.chat.completions.create(**BODY)


async def test_anothers_idempotency_key_gives_another_job(tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "the-same"}
    async with front(tmp_path, **AUTH) as running:
        async with client_of(running, ann()) as client, client_of(running, token("ben", jobs={})) as other:
            first = await client.chat.completions.create(**BODY, extra_headers=headers)
            again = await client.chat.completions.create(**BODY, extra_headers=headers)
            others = await other.chat.completions.create(**BODY, extra_headers=headers)
            assert first.id == again.id != others.id
            with pytest.raises(openai.UnprocessableEntityError) as refused:
                await client.chat.completions.create(**BODY, n=2, extra_headers=headers)
            assert refused.value.code == "idempotency_key_reused"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_ends_with_its_callers_token_and_its_job_is_cancelled(tmp_path: Path, stream: bool) -> None:
    script = Pausing()
    async with front(tmp_path, script, **AUTH, auth_leeway_seconds=0) as running:
        ends = time.time() + 1.5
        async with client_of(running, token("ann", jobs={}, exp=ends)) as client:
            with pytest.raises(openai.APIError) as refused:
                await read(client, stream)
        assert refused.value.code == "token_expired"
        assert time.time() >= ends
        assert isinstance(refused.value, openai.AuthenticationError) != stream
        await until(lambda: running.worker.turns[0].over, "the job is cancelled")


async def test_a_job_that_is_to_go_on_outlives_its_callers_token(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await gate.wait()
        await turn.text("Hello")
        await turn.done()

    headers = {"Idempotency-Key": "k"}
    async with front(tmp_path, script, **AUTH, auth_leeway_seconds=0) as running:
        async with client_of(running, token("ann", jobs={}, exp=time.time() + 1)) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.chat.completions.create(**BODY, extra_headers=headers)
        assert refused.value.code == "token_expired"
        gate.set()
        async with client_of(running, ann()) as client:  # comes back with a new token, for the same answer
            answer = await client.chat.completions.create(**BODY, extra_headers=headers)
        assert answer.choices[0].message.content == "Hello"
        assert len(running.worker.turns) == 1


async def test_an_answer_ends_when_its_caller_is_revoked(tmp_path: Path) -> None:
    script = Pausing()
    async with (
        broker(tmp_path, StreamLimits(identity=True)) as (nats, bus),
        front_at(nats.url, script, **AUTH) as running,
        client_of(running, ann()) as client,
    ):
        reading = asyncio.create_task(read(client, True))
        await script.begun.wait()
        async with client_of(running, token("ben", jobs={})) as other:
            others = asyncio.create_task(read(other, True))
            await until(lambda: len(running.worker.turns) == 2, "another's answer has begun")
            await Revocations(bus, 86_400).revoke("sub", "ann")  # as publisher-api does
            with pytest.raises(openai.APIError) as refused:
                await reading
            assert refused.value.code == "revoked"
            assert not others.done()
            others.cancel()
        await until(lambda: running.worker.turns[0].over, "the job is cancelled")


async def test_an_answer_ends_when_its_callers_identity_provider_takes_the_key_back(tmp_path: Path) -> None:
    key, other = new_key("ES256"), new_key("ES256")
    text = signed(claims(tidegate={"jobs": {}}), {"alg": "ES256", "kid": "a"}, key)
    script = Pausing()
    async with front(tmp_path, script, **AUTH) as running, client_of(running, text) as client:
        tokens = running.gateway.gateway.identity.authenticator.tokens
        tokens.use(read_jwks(jwks(("a", key))))
        reading = asyncio.create_task(read(client, True))
        await script.begun.wait()
        tokens.use(read_jwks(jwks(("b", other))))
        with pytest.raises(openai.APIError) as refused:
            await reading
        assert refused.value.code == "token_expired"
        await until(lambda: running.worker.turns[0].over, "the job is cancelled")


async def test_an_answer_ends_when_its_services_key_is_gone_from_the_file(tmp_path: Path) -> None:
    key, file = "tgk_shop_" + "x" * 43, tmp_path / "keys.toml"
    entry = f'[[key]]\nid = "shop"\nsha256 = "{sha256(key.encode()).hexdigest()}"\n'
    file.write_text(entry + "jobs = {}\n")
    script = Pausing()
    async with front(tmp_path, script, **AUTH, api_keys_file=str(file)) as running, client_of(running, key) as client:
        reading = asyncio.create_task(read(client, True))
        await script.begun.wait()
        assert running.worker.turns[0].job.owner == "key.shop"
        file.write_text(entry)
        with pytest.raises(openai.APIError) as refused:
            await reading
        assert refused.value.code == "revoked"
        with pytest.raises(openai.PermissionDeniedError):
            await read(client, True)


async def test_a_token_that_ends_while_the_body_comes_asks_for_nothing(tmp_path: Path) -> None:
    async with front(tmp_path, **AUTH, auth_leeway_seconds=0) as running, httpx.AsyncClient() as http:
        ends = time.time() + 1
        body = msgspec.json.encode(BODY)

        async def slowly() -> AsyncIterator[bytes]:
            yield body[:10]
            await until(lambda: time.time() > ends, "the token has ended")
            yield body[10:]

        headers = {**bearer(token("ann", jobs={}, exp=ends)), "content-type": "application/json"}
        url = f"{running.gateway.url}/v1/chat/completions"
        answer = await http.post(url, content=slowly(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_expired")
        assert running.worker.turns == []


async def read(client: AsyncOpenAI, stream: bool) -> None:
    if not stream:
        await client.chat.completions.create(**BODY)
        return
    async for _ in await client.chat.completions.create(**BODY, stream=True):
        pass
