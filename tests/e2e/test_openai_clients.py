"""OpenAI's own clients against all of Tidegate: the base URL is all that changes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from ai_worker.models.scripted import ANSWERS
from tests.integration.ai_worker.support import worker
from tests.support.gateway import running_gateway
from tests.support.nats import nats_server
from tests.support.npm import installed
from tests.support.processes import running as process
from tests.support.stack import Stack, stack
from tests.support.waiting import until

ENV = {
    "TIDEGATE_SCRIPTED_THINK_SECONDS": "0",
    "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.002",
    "TIDEGATE_AI_DOUBT_SECONDS": "4",  # a gateway that was killed may as well be paused: usually for a minute
}
USAGE = {"prompt_tokens": 5, "completion_tokens": len(ANSWERS["en"]), "total_tokens": 5 + len(ANSWERS["en"])}


def said(content: str) -> Any:
    return [{"role": "user", "content": content}]


@asynccontextmanager
async def client_of(data: Path) -> AsyncIterator[tuple[Stack, AsyncOpenAI]]:
    async with stack(data, ENV) as running:
        base = f"{running.gateways[0]}/v1"
        async with AsyncOpenAI(base_url=base, api_key="any", max_retries=0, timeout=20) as client:
            yield running, client


async def ended(running: Stack, job_id: str, status: str) -> None:
    """Returns when the job's record says `status`."""
    async with httpx.AsyncClient() as http:

        async def reached() -> bool:
            answer = await http.get(f"{running.publisher}/api/ai/chat/{job_id}")
            return answer.status_code == 200 and answer.json()["status"] == status

        await until(reached, f"{job_id} is {status}", 20)


async def test_the_python_client_gets_whole_answers_and_streams_of_them(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (running, client):
        whole = await client.chat.completions.create(model="scripted", messages=said("hello"))
        assert whole.choices[0].message.content == ANSWERS["en"]
        assert whole.usage is not None
        assert whole.usage.model_dump(exclude_none=True) == USAGE
        await ended(running, str(whole._request_id), "done")
        stream = await client.chat.completions.create(
            model="scripted", messages=said("hello"), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == ANSWERS["en"]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.model_dump(exclude_none=True) == USAGE
        short = await client.chat.completions.create(model="scripted", messages=said("hello"), max_tokens=5)
        assert (short.choices[0].message.content, short.choices[0].finish_reason) == (ANSWERS["en"][:5], "length")


async def test_the_python_client_tells_of_a_backend_that_fails_and_of_a_prompt_that_is_too_long(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (_, client):
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(model="scripted", messages=said("please [fail]"))
        assert (failed.value.status_code, failed.value.code) == (502, "backend_error")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="scripted", messages=said("x" * 20_000))
        assert refused.value.code == "context_length_exceeded"


async def test_the_python_client_cancels_a_job_by_closing_its_stream(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (running, client):
        stream = await client.chat.completions.create(model="scripted", messages=said("[long]"), stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await ended(running, stream.response.headers["x-request-id"], "cancelled")


async def test_a_job_whose_gateway_was_killed_is_cancelled_since_nobody_waits_for_it(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (running, client):
        stream = await client.chat.completions.create(model="scripted", messages=said("[long]"), stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await running.processes["gateway-0"].stop(signal.SIGKILL)
        await ended(running, stream.response.headers["x-request-id"], "cancelled")
        await stream.close()


async def test_a_worker_that_is_killed_costs_the_client_nothing_but_a_pause(tmp_path: Path) -> None:
    pace = {**ENV, "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.02", "TIDEGATE_AI_ACK_SECONDS": "1.5"}
    async with nats_server(tmp_path) as nats, running_gateway(nats.url) as gateway, worker(nats, pace) as (dying, _):
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
            stream = await client.chat.completions.create(model="scripted", messages=said("hello"), stream=True)
            text, reasons = "", []

            async def read() -> None:
                nonlocal text
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                    reasons.extend([chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else [])

            reading = asyncio.create_task(read())
            await until(lambda: len(text) > 10, "some text has come")
            dying.process.kill()
            await dying.process.wait()
            async with worker(nats, pace):
                await reading
            assert (text, reasons) == (ANSWERS["en"], ["stop"])


async def test_an_answer_that_nobody_waited_for_is_kept_under_its_id(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (running, client), httpx.AsyncClient() as http:
        headers = {"Tidegate-On-Disconnect": "continue"}
        stream = await client.chat.completions.create(
            model="scripted", messages=said("hello"), stream=True, extra_headers=headers
        )
        await stream.close()
        job_id = stream.response.headers["x-request-id"]
        await ended(running, job_id, "done")
        job = (await http.get(f"{running.publisher}/api/ai/chat/{job_id}")).json()
        assert job["answer"]["candidates"][0]["content"] == ANSWERS["en"]
        events = await http.get(f"{running.gateways[0]}/api/sse/jobs/{job_id}")
        assert events.text.count("event: ai_response") > 1


async def test_several_streams_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (_, client):

        async def ask(content: str) -> str:
            stream = await client.chat.completions.create(model="scripted", messages=said(content), stream=True)
            return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

        texts = await asyncio.gather(*(ask("hello" if number % 2 else "你好") for number in range(20)))
        assert texts == [ANSWERS["en" if number % 2 else "zh"] for number in range(20)]


async def test_the_python_client_lists_the_models(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (_, client):
        models = [model async for model in await client.models.list()]
        assert "scripted" in [model.id for model in models]


async def test_the_python_client_gets_several_candidates(tmp_path: Path) -> None:
    async with client_of(tmp_path) as (_, client):
        answer = await client.chat.completions.create(model="scripted", messages=said("hello"), n=2)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(choice.message.content for choice in answer.choices)


async def test_the_node_client_does_all_of_it_too(tmp_path: Path) -> None:
    folder = installed("openai.mjs")
    async with stack(tmp_path, ENV) as running:
        command = ("node", "openai.mjs", f"{running.gateways[0]}/v1")
        async with process(*command, cwd=str(folder)) as node:
            await asyncio.wait_for(node.process.wait(), 40)
            assert await node.stop() == 0, "\n".join(node.output)
        found = json.loads(node.output[-1])
        whole = {"content": ANSWERS["en"], "reason": "stop", "usage": USAGE, "named": True}
        assert found["whole"] == whole
        assert found["stream"] == {
            "content": ANSWERS["en"],
            "roles": ["assistant"],
            "reasons": ["stop"],
            "usage": USAGE,
        }
        assert found["unsupported"] == {
            "name": "BadRequestError",
            "status": 400,
            "code": "unsupported_parameter",
            "param": "tools",
        }
        assert (found["broken"]["status"], found["broken"]["code"]) in ((502, "backend_error"), (None, "backend_error"))
        await ended(running, found["cancelled"], "cancelled")
