from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai

from gateway.feed.reader import BACKLOG_BYTES
from tests.integration.openai_front.support import ASK, front
from tests.support.waiting import until
from tests.support.working import Turn
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.contract.jobs import OnDisconnect


async def test_who_waits_for_an_answer_counts_as_present(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await go_on.wait()
        await turn.text("Hello")
        await turn.done()

    async with front(tmp_path, slow) as (_, worker, client):
        gateways = AllGateways(worker.bus)
        asking = asyncio.create_task(client.chat.completions.create(model="any", messages=ASK))
        await until(lambda: worker.turns, "the job is at work")
        job = worker.turns[0].job
        assert job.on_disconnect is OnDisconnect.CANCEL
        assert (await gateways.presence(job.tail, 1, job.job_id)).total == 1
        assert (await gateways.presence("job.other", 1, "other")).total == 0
        go_on.set()
        await asking

        async def nobody() -> bool:
            return (await gateways.presence(job.tail, 1, job.job_id)).total == 0

        await until(nobody, "the caller counts no more: it has its answer a moment before the gateway is done with it")


async def test_a_completion_leaves_nothing_behind(tmp_path: Path) -> None:
    async with front(tmp_path) as (gateway, _, client):
        await client.chat.completions.create(model="any", messages=ASK)
        admission = gateway.gateway.openai.admission
        await until(lambda: not admission.active, "the first has ended")
        subscriptions = len(gateway.bus.client._subs)
        for stream in (False, True):
            answers = [client.chat.completions.create(model="any", messages=ASK, stream=stream) for _ in range(10)]
            for answer in await asyncio.gather(*answers):
                if isinstance(answer, openai.AsyncStream):
                    await answer.close()
        await until(lambda: not admission.active, "all have ended")
        assert admission.total == 21
        assert len(gateway.bus.client._subs) == subscriptions


async def test_a_client_that_reads_late_holds_up_nobody_and_gets_all_of_it(tmp_path: Path) -> None:
    piece, pieces = "x" * 100_000, 150

    async def much(turn: Turn) -> None:
        for _ in range(pieces):
            await turn.text(piece)
        await turn.done()

    async with front(tmp_path, much) as (gateway, worker, client):
        async with client.chat.completions.with_streaming_response.create(
            model="any", messages=ASK, stream=True
        ) as response:
            await until(lambda: worker.turns and worker.turns[0].over, "the worker is done")
            (session,) = gateway.gateway.hub.sessions
            reader: Any = getattr(session.send, "__self__", None)
            assert len(piece) < reader._size <= BACKLOG_BYTES + 2 * len(piece)
            text = 0
            async for line in response.iter_lines():
                if line.startswith("data: {"):
                    text += sum(len(choice["delta"].get("content", "")) for choice in json.loads(line[6:])["choices"])
            assert text == len(piece) * pieces


async def test_a_page_of_an_origin_that_is_let_in_may_ask(tmp_path: Path) -> None:
    async with front(tmp_path, cors_origins=("https://app.example",)) as (gateway, _, _), httpx.AsyncClient() as http:
        url = f"{gateway.url}/v1/chat/completions"
        origin = {"origin": "https://app.example"}
        wanted = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"
        asking = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
        allowed = await http.options(url, headers={**origin, **asking})
        assert allowed.status_code == 200
        answer = await http.post(url, json={"model": "any", "messages": ASK}, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "x-ratelimit-remaining-tokens", "www-authenticate"}.issubset(exposed)


async def test_comments_keep_a_stream_that_waits_and_the_client_passes_them_over(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await go_on.wait()
        await turn.text("Hello")
        await turn.done()

    async with front(tmp_path, slow, heartbeat_seconds=0.05) as (gateway, _, client):
        body = {"model": "any", "messages": ASK, "stream": True}
        async with httpx.AsyncClient() as plain:
            async with plain.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as response:
                asking = asyncio.create_task(client.chat.completions.create(model="any", messages=ASK, stream=True))
                comments = 0
                async for line in response.aiter_lines():
                    comments += line.startswith(":")
                    if comments == 3:
                        go_on.set()
                    if line == "data: [DONE]":
                        break
                assert comments >= 3
        chunks = [chunk async for chunk in await asking]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
