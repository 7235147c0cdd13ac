"""Who may ask for completions, by OpenAI's own clients and real processes: rights, and one budget on every way in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from ai_worker.models.scripted import ANSWERS
from tests.e2e.test_openai_clients import ENV, said
from tests.support.identity import SECRET, bearer, token
from tests.support.npm import installed
from tests.support.processes import running as process
from tests.support.stack import stack

TOKENS = {**ENV, "TIDEGATE_AUTH": "token", "TIDEGATE_AUTH_SECRET": SECRET}


def with_jobs(sub: str, **jobs: Any) -> str:
    return token(sub, jobs=jobs)


async def test_the_node_client_tells_refusals_apart_and_repeats_no_spent_budget(tmp_path: Path) -> None:
    folder = installed("openai_refused.mjs")
    asked = [
        {"key": with_jobs("ann"), "model": "scripted"},
        {"key": "any", "model": "scripted"},
        {"key": token("ann"), "model": "scripted"},
        {"key": with_jobs("ann", models=["scripted"]), "model": "large"},
        {"key": with_jobs("ben", max_tokens=10, tokens_per_day=5), "model": "scripted"},
    ]
    async with stack(tmp_path, TOKENS) as running:
        command = ("node", "openai_refused.mjs", f"{running.gateways[0]}/v1", json.dumps(asked))
        async with process(*command, cwd=str(folder)) as node:
            await asyncio.wait_for(node.process.wait(), 40)
            assert await node.stop() == 0, "\n".join(node.output)
        assert json.loads(node.output[-1]) == [
            ["ok", None, None, 1],
            ["AuthenticationError", 401, "invalid_api_key", 1],
            ["PermissionDeniedError", 403, "forbidden", 1],
            ["NotFoundError", 404, "model_not_found", 1],
            ["RateLimitError", 429, "insufficient_quota", 1],
        ]


async def test_one_budget_holds_on_every_way_in(tmp_path: Path) -> None:
    key = with_jobs("ann", max_tokens=60, tokens_per_day=160)
    chat = {"messages": said("hello"), "model": "scripted"}
    async with stack(tmp_path, TOKENS, gateways=2) as running, httpx.AsyncClient(headers=bearer(key)) as http:
        async with AsyncOpenAI(base_url=f"{running.gateways[0]}/v1", api_key=key, max_retries=0) as client:
            answer = await client.chat.completions.create(model="scripted", messages=said("hello"))
            assert answer.choices[0].message.content == ANSWERS["en"][:60]
            job = {"kind": "chat", "params": chat, "user_id": "ann"}
            second = await http.post(f"{running.publisher}/api/ai/jobs", json=job)
            assert second.status_code == 202
            refused = await http.post(f"{running.publisher}/api/ai/chat", json={**chat, "user_id": "ann"})
            assert (refused.status_code, refused.json()["limit"]) == (429, "tokens_per_day")
            assert refused.headers["retry-after"]
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="scripted", messages=said("hello"))
        other = with_jobs("ben", max_tokens=60, tokens_per_day=160)
        async with AsyncOpenAI(base_url=f"{running.gateways[1]}/v1", api_key=other, max_retries=0) as client:
            await client.chat.completions.create(model="scripted", messages=said("hello"))
