"""Callers of `/v1` while NATS goes away in the middle of their answers."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import cycle, islice
from typing import Any

import httpx

from ai_worker.models.scripted import ANSWERS
from tests.stress.answers.accounts import Wanted
from tests.stress.answers.scenarios.relaying import trouble
from tests.stress.answers.world import AiWorld

EACH_SECONDS = 0.2
ANSWER_SECONDS = 60.0
"""An answer takes no longer. Comments come meanwhile: no read of it ends by itself."""


async def complete(world: AiWorld, seconds: float) -> None:
    """What befalls `ai_relay` befalls callers of completions, each watched by one who reads the job's own stream.

    A third sends a key, and half of those break off in the middle and come back with it. No caller is told an error
    once its answer has begun, and each gets all of its text once.
    """
    end = time.monotonic() + seconds
    faults = asyncio.create_task(trouble(world, seconds))
    callers: list[asyncio.Task[None]] = []
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=httpx.Limits(max_connections=None)) as http:
        while time.monotonic() < end:
            callers.append(asyncio.create_task(_call(world, http, len(callers))))
            await asyncio.sleep(EACH_SECONDS)
        await faults
        await asyncio.gather(*callers)


async def _call(world: AiWorld, http: httpx.AsyncClient, number: int) -> None:
    tokens = world.rng.randint(20, len(ANSWERS["en"]))
    body = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": tokens}
    headers = {"idempotency-key": f"{world.rng.getrandbits(64):x}"} if number % 3 == 0 else {}
    breaks_off = bool(headers) and number % 2 == 0
    while True:
        response = await _begin(world, http, body, headers)
        try:
            if breaks_off:
                breaks_off = False
                await anext(response.aiter_lines())
                continue
            job_id = response.headers["x-request-id"]
            wanted = Wanted(job_id, "".join(islice(cycle(ANSWERS["en"]), tokens)))
            world.jobs.append(wanted)
            world.watch(wanted)
            async with asyncio.timeout(ANSWER_SECONDS):
                text = await _text(response)
            if text != wanted.text:
                world.problems.append(f"completion {job_id}: {text!r} is not {wanted.text!r}")
            return
        except (AssertionError, TimeoutError, httpx.HTTPError) as error:
            world.problems.append(f"completion {response.headers['x-request-id']}: {error!r}")
            return
        finally:
            await response.aclose()


async def _begin(
    world: AiWorld, http: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str]
) -> httpx.Response:
    """Asked until an answer begins."""
    while True:
        url = f"http://127.0.0.1:{world.rng.choice(world.gateways).port}/v1/chat/completions"
        response = await http.send(http.build_request("POST", url, json=body, headers=headers), stream=True)
        if response.status_code == 200:
            return response
        said = (await response.aread()).decode()
        if response.status_code != 503:
            world.problems.append(f"a completion got {response.status_code}: {said}")
        await asyncio.sleep(0.1)


async def _text(response: httpx.Response) -> str:
    """The answer's, up to its end. Raises AssertionError if it is cut short."""
    text, done = "", False
    async for line in response.aiter_lines():
        if not line.startswith("data: "):
            continue
        assert not done, "there is something after the end"
        done = line == "data: [DONE]"
        if not done:
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    assert done, f"it ended after {text!r}"
    return text
