"""What goes wrong, as OpenAI's client tells it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.integration.openai_front.support import ASK, front
from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.support.working import Turn, hello, scripted_worker
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.streams.definitions import StreamLimits


class Gate:
    """A script that answers once it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, turn: Turn) -> None:
        await self.open.wait()
        await hello(turn)


async def test_what_is_not_supported_is_refused_by_name_and_never_becomes_a_job(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, worker, client):
        tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="any", messages=ASK, tools=tools)
        assert (refused.value.param, refused.value.code) == ("tools", "unsupported_parameter")
        assert refused.value.type == "invalid_request_error"
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="any", messages=ASK, extra_body={"top_k": 3})
        assert refused.value.param == "top_k"
        assert worker.turns == []


async def test_all_below_v1_answers_in_openais_shape(tmp_path: Path) -> None:
    async with front(tmp_path, max_completion_bytes=1000) as running, httpx.AsyncClient() as http:
        url = f"{running.gateway.url}/v1"
        big = {"model": "any", "messages": [{"role": "user", "content": "x" * 2000}]}
        is_json = {"content-type": "application/json"}
        asked = [
            (await http.post(f"{url}/embeddings", json={}), 404),
            (await http.get(f"{url}/chat/completions"), 405),
            (await http.post(f"{url}/chat/completions", json=big), 413),
            (await http.post(f"{url}/chat/completions", content=b"hi"), 415),
            (await http.post(f"{url}/chat/completions", content=b"{", headers=is_json), 400),
        ]
        for response, status in asked:
            assert response.status_code == status
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
        headers = {"tidegate-on-disconnect": "stay"}
        body = {"model": "any", "messages": ASK}
        refused = await http.post(f"{url}/chat/completions", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Tidegate-On-Disconnect")


async def test_a_full_queue_is_said_with_a_time_to_come_back(tmp_path: Path) -> None:
    async with broker(tmp_path, StreamLimits(max_jobs=1)) as (nats, _), running_gateway(nats.url) as gateway:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
            waiting = asyncio.create_task(client.chat.completions.create(model="any", messages=ASK))

            async def queued() -> bool:
                return (await gateway.bus.jetstream.stream_info("TG_JOBS")).state.messages == 1

            await until(queued, "a job is in the queue")
            with pytest.raises(openai.InternalServerError) as refused:
                await client.chat.completions.create(model="any", messages=ASK)
            waiting.cancel()
        assert (refused.value.status_code, refused.value.type, refused.value.code) == (503, "overloaded", "queue_full")
        assert int(refused.value.response.headers["retry-after"]) > 0


async def test_one_process_waits_for_so_many_completions_and_no_more(tmp_path: Path) -> None:
    gate = Gate()
    async with front(tmp_path, gate, max_completions=1) as running:
        first = asyncio.create_task(running.client.chat.completions.create(model="any", messages=ASK))
        await until(lambda: running.worker.turns, "the first one is at work")
        with pytest.raises(openai.InternalServerError) as refused:
            await running.client.chat.completions.create(model="any", messages=ASK)
        assert (refused.value.status_code, refused.value.code) == (503, "too_many_completions")
        gate.open.set()
        assert (await first).choices[0].message.content == "Hello world"
        await running.client.chat.completions.create(model="any", messages=ASK)


async def test_without_a_server_it_is_refused_and_a_stream_that_was_begun_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    gate, recorded = asyncio.Event(), asyncio.Event()

    async def slow(turn: Turn) -> None:
        await turn.text("Hello")
        await gate.wait()
        await turn.text(" world")
        await turn.done()
        recorded.set()

    port = free_port()
    async with nats_server(tmp_path, port) as nats, running_gateway(nats.url) as gateway:
        async with scripted_worker(nats.url, slow):
            async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
                stream = await client.chat.completions.create(model="any", messages=ASK, stream=True)
                text = ""

                async def read() -> None:
                    nonlocal text
                    async for chunk in stream:
                        text += chunk.choices[0].delta.content or ""

                reading = asyncio.create_task(read())
                await until(lambda: text == "Hello", "the first piece has come")
                await nats.run.stop()
                await until(lambda: not gateway.bus.connected, "the gateway has lost its connection")
                with pytest.raises(openai.InternalServerError) as refused:
                    await client.chat.completions.create(model="any", messages=ASK)
                assert (refused.value.status_code, refused.value.code) == (503, "unavailable")
                async with nats_server(tmp_path, port):
                    gate.set()
                    await reading
                    assert text == "Hello world"
                    await recorded.wait()  # the worker writes the record's end after the last event


async def test_an_attempt_that_begins_again_goes_on_unseen_or_ends_the_stream(tmp_path: Path) -> None:
    async def again(turn: Turn) -> None:
        await turn.text("Hello w")
        await turn.restart()
        await turn.text("Hello")
        await turn.text(" world" if turn.prompt == "same" else ", you")
        await turn.done()

    async with front(tmp_path, again) as (_, _, client):

        async def said(prompt: str) -> tuple[str, str | None]:
            text = ""
            messages: Any = [{"role": "user", "content": prompt}]
            try:
                async for chunk in await client.chat.completions.create(model="any", messages=messages, stream=True):
                    text += chunk.choices[0].delta.content or ""
            except openai.APIError as error:
                return text, error.code
            return text, None

        assert await said("same") == ("Hello world", None)
        assert await said("other") == ("Hello w", "answer_restarted")
        messages: Any = [{"role": "user", "content": "other"}]
        whole = await client.chat.completions.create(model="any", messages=messages)
        assert whole.choices[0].message.content == "Hello, you"


async def test_a_client_that_goes_before_its_whole_answer_cancels_the_job(tmp_path: Path) -> None:
    gate = Gate()
    async with front(tmp_path, gate) as running:
        asking = asyncio.create_task(running.client.chat.completions.create(model="any", messages=ASK))
        await until(lambda: running.worker.turns, "the job is at work")
        asking.cancel()
        await running.becomes("cancelled", running.worker.turns[0].job.job_id)


async def test_a_client_that_goes_while_its_job_is_being_taken_ends_it_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of these tests wrote "running" over the end, and another test waited for "cancelled" in vain."""
    async with front(tmp_path) as running:
        states, taken, go_on = running.worker.states, asyncio.Queue[str](), asyncio.Event()
        change, looked = states.change, asyncio.Event()

        async def late(job_id: str, edit: Any) -> Any:
            taken.put_nowait(job_id)
            await go_on.wait()
            state = await change(job_id, edit)
            looked.set()
            return state

        monkeypatch.setattr(states, "change", late)
        asking = asyncio.create_task(running.client.chat.completions.create(model="any", messages=ASK))
        job_id = await taken.get()
        asking.cancel()
        await running.becomes("cancelled", job_id)
        go_on.set()
        await looked.wait()
        assert await running.status(job_id) == "cancelled"
        assert running.worker.turns == []


async def test_an_answer_that_another_cancels_is_an_error_that_no_client_repeats(tmp_path: Path) -> None:
    gate = Gate()
    async with front(tmp_path, gate) as running:
        client = running.client.with_options(max_retries=2)
        asking = asyncio.create_task(client.chat.completions.create(model="any", messages=ASK))
        await until(lambda: running.worker.turns, "the job is at work")
        running.worker.cancel(running.worker.turns[0].job.job_id)
        with pytest.raises(openai.ConflictError) as told:
            await asking
        assert told.value.code == "cancelled"
        assert len(running.worker.turns) == 1


async def test_a_job_that_nobody_takes_in_time_is_given_up_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.openai.http.LATE_SECONDS", 0.1)
    async with broker(tmp_path) as (nats, bus), running_gateway(nats.url, completion_seconds=0.2) as gateway:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
            with pytest.raises(openai.InternalServerError) as told:
                await client.chat.completions.create(model="any", messages=ASK)
        assert (told.value.status_code, told.value.code) == (504, "timeout")
        states = JobRecords(bus)

        async def wished() -> bool:
            return (await states.get(told.value.request_id or "")).cancel

        await until(wished, "the job is to be cancelled")


async def test_a_gateway_that_stops_takes_no_more_and_cuts_what_is_not_done_in_time(tmp_path: Path) -> None:
    async def endless(turn: Turn) -> None:
        await turn.text("Hello")
        await turn.cancelled.wait()
        await turn.done("cancelled")

    async with front(tmp_path, endless, drain_seconds=1) as running:
        text = ""
        stream = await running.client.chat.completions.create(model="any", messages=ASK, stream=True)

        async def read() -> None:
            nonlocal text
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""

        reading = asyncio.create_task(read())
        await until(lambda: text == "Hello", "the first piece has come")
        stopping = asyncio.create_task(running.gateway.stop())
        with pytest.raises(openai.APIError) as told:
            await reading
        assert told.value.code == "stopping"
        await stopping
        await running.becomes("cancelled", running.worker.turns[0].job.job_id)


async def test_a_completion_that_ends_while_the_gateway_stops_is_whole(tmp_path: Path) -> None:
    gate = Gate()
    async with front(tmp_path, gate, drain_seconds=20) as running:
        asking = asyncio.create_task(running.client.chat.completions.create(model="any", messages=ASK))
        await until(lambda: running.worker.turns, "the job is at work")
        stopping = asyncio.create_task(running.gateway.stop())
        await until(lambda: running.gateway.gateway.openai.admission.draining, "the gateway drains")
        gate.open.set()
        assert (await asking).choices[0].message.content == "Hello world"
        await stopping
