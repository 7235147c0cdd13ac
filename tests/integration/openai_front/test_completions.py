from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.hub.tails import filtered
from tests.integration.openai_front.support import ASK, front
from tests.support.waiting import until
from tests.support.working import Turn
from tidegate_common.contract.subjects import job_tail


async def test_a_completion_is_answered_whole_with_its_usage(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, worker, client):
        answer = await client.chat.completions.create(model="any", messages=ASK)
        (choice,) = answer.choices
        assert (choice.message.content, choice.message.role, choice.finish_reason) == (
            "Hello world",
            "assistant",
            "stop",
        )
        assert choice.message.model_extra == {"reasoning_content": "Hm."}
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 2, 5)
        assert answer.id == f"chatcmpl-{answer._request_id}"
        assert answer._request_id == worker.turns[0].job.job_id
        assert answer.model == "scripted-1"


async def test_a_stream_begins_with_the_role_and_ends_with_a_reason_and_the_usage(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, _, client):
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(model="any", messages=ASK, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
        assert "".join(delta.content or "" for delta in deltas) == "Hello world"
        assert "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas) == "Hm."
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 5
        assert len({chunk.id for chunk in chunks}) == 1


async def test_several_candidates_are_told_apart_by_their_index(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, _, client):
        answer = await client.chat.completions.create(model="any", messages=ASK, n=3)
        assert [(each.index, each.message.content) for each in answer.choices] == [
            (number, "Hello world") for number in range(3)
        ]
        texts, reasons = ["", ""], ["", ""]
        async for chunk in await client.chat.completions.create(model="any", messages=ASK, n=2, stream=True):
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] += choice.finish_reason or ""
        assert (texts, reasons) == (["Hello world"] * 2, ["stop"] * 2)


async def test_what_is_asked_for_reaches_the_worker(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, worker, client):
        messages: Any = [
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            *ASK,
        ]
        await client.chat.completions.create(
            model="m",
            messages=messages,
            max_completion_tokens=7,
            temperature=0.5,
            top_p=0.9,
            stop="END",
            seed=4,
            presence_penalty=1,
            frequency_penalty=-1,
            user="ann@example.org",
            store=True,
            response_format={"type": "text"},
        )
        turn = worker.turns[0]
        assert [(each.role, each.content) for each in turn.params.messages] == [
            ("system", "Be brief."),
            ("user", "Say hello."),
        ]
        asked = turn.params
        assert (asked.model, asked.max_tokens, asked.temperature, asked.top_p) == ("m", 7, 0.5, 0.9)
        assert (asked.stop, asked.seed, asked.presence_penalty, asked.frequency_penalty) == (["END"], 4, 1, -1)
        assert turn.job.owner == "user.ann%40example%2Eorg"
        assert turn.job.deadline is not None
        assert turn.job.tail == f"job.{turn.job.job_id}"


async def test_shares_go_by_the_key_or_else_by_the_address_and_no_key_is_written_down(tmp_path: Path) -> None:
    async with front(tmp_path) as (gateway, worker, client), httpx.AsyncClient() as http:
        for key in ("secret-1", "secret-2", "secret-1"):
            await client.with_options(api_key=key).chat.completions.create(model="any", messages=ASK)
        body = {"model": "any", "messages": ASK}
        assert (await http.post(f"{gateway.url}/v1/chat/completions", json=body)).status_code == 200
        owners = [turn.job.owner for turn in worker.turns]
        assert owners[0] == owners[2] != owners[1]
        assert owners[3] == "address.127%2E0%2E0%2E1"
        assert "secret" not in "".join(owners)


async def test_closing_the_stream_cancels_the_job(tmp_path: Path) -> None:
    async def endless(turn: Turn) -> None:
        await turn.text("Hello")
        await turn.cancelled.wait()
        await turn.done("cancelled")

    async with front(tmp_path, endless) as running:
        stream = await running.client.chat.completions.create(model="any", messages=ASK, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        job_id = running.worker.turns[0].job.job_id
        await running.becomes("cancelled", job_id)


async def test_of_several_callers_of_one_job_the_last_one_to_leave_cancels_it(tmp_path: Path) -> None:
    """The first one to leave took the answer away from the others."""

    async def endless(turn: Turn) -> None:
        await turn.text("Hello")
        await turn.cancelled.wait()
        await turn.done("cancelled")

    async with front(tmp_path, endless) as running:
        sent = {"Idempotency-Key": "k1", "Tidegate-On-Disconnect": "cancel"}
        create = running.client.chat.completions.create
        first, second = [await create(model="any", messages=ASK, stream=True, extra_headers=sent) for _ in range(2)]
        job_id = running.worker.turns[0].job.job_id
        gateway = running.gateway.gateway
        tail = filtered(job_tail(job_id), job_id)
        assert len(gateway.hub.listening(tail)) == 2
        await first.close()
        await until(lambda: gateway.openai.admission.active == 1, "the first has gone")
        assert len(gateway.hub.listening(tail)) == 1
        await gateway.openai._completions.aclose()
        assert await running.status(job_id) == "running"
        await second.close()
        await running.becomes("cancelled", job_id)
        assert len(running.worker.turns) == 1


async def test_a_caller_that_says_so_leaves_its_job_running(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await turn.text("Hello")
        await go_on.wait()
        await turn.done()

    async with front(tmp_path, slow) as running:
        headers = {"Tidegate-On-Disconnect": "continue"}
        stream = await running.client.chat.completions.create(
            model="any", messages=ASK, stream=True, extra_headers=headers
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await until(lambda: not running.gateway.gateway.openai.admission.active, "the client has gone")
        go_on.set()
        job_id = stream.response.headers["x-request-id"]

        async def done() -> bool:
            return await running.status(job_id) == "done"

        await until(done, "the job is done")


@pytest.mark.parametrize(
    ("code", "kind", "status", "told"),
    [
        ("prompt_too_long", openai.BadRequestError, 400, "context_length_exceeded"),
        ("model_not_found", openai.NotFoundError, 404, "model_not_found"),
        ("backend_error", openai.InternalServerError, 502, "backend_error"),
        ("timeout", openai.InternalServerError, 504, "timeout"),
        ("too_many_attempts", openai.InternalServerError, 500, "too_many_attempts"),
    ],
)
async def test_a_job_that_fails_is_an_error_that_no_client_repeats(
    tmp_path: Path, code: str, kind: type[openai.APIStatusError], status: int, told: str
) -> None:
    async def failing(turn: Turn) -> None:
        await turn.fail(code)

    async with front(tmp_path, failing) as (_, worker, client):
        for stream in (False, True):
            with pytest.raises(kind) as refused:
                await client.with_options(max_retries=2).chat.completions.create(
                    model="any", messages=ASK, stream=stream
                )
            assert (refused.value.status_code, refused.value.code) == (status, told)
            assert refused.value.request_id == worker.turns[-1].job.job_id
        assert len(worker.turns) == 2


async def test_an_error_in_the_middle_of_a_stream_is_an_event(tmp_path: Path) -> None:
    async def failing(turn: Turn) -> None:
        await turn.text("Hel")
        await turn.fail("backend_error", "The model is away.")

    async with front(tmp_path, failing) as (_, _, client):
        stream = await client.chat.completions.create(model="any", messages=ASK, stream=True)
        text = ""

        async def read() -> None:
            nonlocal text
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""

        with pytest.raises(openai.APIError, match="The model is away") as broken:
            await read()
        assert (text, broken.value.code, broken.value.type) == ("Hel", "backend_error", "server_error")


async def test_another_completion_under_the_same_key_is_refused(tmp_path: Path) -> None:
    """Another prompt under a key that was used got the answer to the first one."""
    async with front(tmp_path) as (_, worker, client):
        key = {"Idempotency-Key": "k1"}
        create = client.chat.completions.create
        first = await create(model="any", messages=ASK, extra_headers=key)
        other: Any = [{"role": "user", "content": "Say goodbye."}]
        changes: list[dict[str, Any]] = [
            {"messages": other},
            {"max_tokens": 3},
            {"model": "b"},
            {"user": "u"},
            {"n": 2},
        ]
        for change in changes:
            for stream in (False, True):
                with pytest.raises(openai.UnprocessableEntityError) as refused:
                    await create(**{"model": "any", "messages": ASK, **change}, stream=stream, extra_headers=key)
                assert (refused.value.code, refused.value.type) == ("idempotency_key_reused", "invalid_request_error")
        again = await create(model="any", messages=ASK, stream=True, extra_headers=key)
        assert {chunk.id async for chunk in again} == {first.id}, "whether it is streamed is no other request"
        assert len(worker.turns) == 1


async def test_one_idempotency_key_is_one_job_however_often_it_is_asked(tmp_path: Path) -> None:
    async with front(tmp_path) as (_, worker, client):
        answers = [
            await client.chat.completions.create(model="any", messages=ASK, extra_headers={"Idempotency-Key": "k1"})
            for _ in range(2)
        ]
        assert answers[0].id == answers[1].id
        state = await worker.states.get(answers[0].id.removeprefix("chatcmpl-"))
        # As earlier releases made them of the key and the request: a retry across an upgrade finds its job.
        assert state.job_id == "9add719d1469e14486e122af2d28a32a"
        assert state.request == "17f139d1c7498d081ac6fd4c0ce2a7bf"
        assert [each.choices[0].message.content for each in answers] == ["Hello world"] * 2
        assert len(worker.turns) == 1
