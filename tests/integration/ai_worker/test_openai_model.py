import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from ai_worker.errors import BackendFailed, PromptTooLong
from ai_worker.models.model import ChatRequest
from ai_worker.models.openai import NO_KEY, OpenAIModel
from ai_worker.pieces import Finish, Piece, Reasoning, Text
from tests.integration.ai_worker.endpoint import MODEL, endpoint
from tests.integration.ai_worker.support import desk, worker
from tests.support.waiting import until
from tidegate_common.contract.jobs import ChatMessage, Usage


def request(prompt: str, model: str = "", temperature: float | None = None) -> ChatRequest:
    message = ChatMessage(role="user", content=prompt)
    return ChatRequest(messages=[message], model=model, max_tokens=9, temperature=temperature)


async def answer(url: str, prompt: str, key: str = "", model: str = "") -> list[Piece]:
    asked = OpenAIModel(url, key)
    try:
        async with aclosing(asked.stream(request(prompt, model))) as pieces:
            return [piece async for piece in pieces]
    finally:
        await asked.aclose()


async def test_both_ways_to_write_reasoning_the_text_and_the_usage_are_read() -> None:
    async with endpoint() as server:
        assert await answer(server.url, "hello", key="k", model="other") == [
            Reasoning("hm"),
            Reasoning("ah"),
            Text("Good "),
            Text("day"),
            Finish("stop", Usage(7, 2), MODEL),
        ]
        (asked,) = server.asked
        assert (asked["model"], asked["max_tokens"], asked["stream_options"]) == ("other", 9, {"include_usage": True})
        assert "temperature" not in asked
        assert server.keys == ["Bearer k"]


async def test_without_a_model_and_a_key_the_endpoints_first_model_and_a_placeholder_are_sent() -> None:
    async with endpoint() as server:
        (*_, last) = await answer(server.url, "uncounted")
        assert last == Finish("stop", None, MODEL)
        assert server.asked[0]["model"] == MODEL
        assert server.keys == [f"Bearer {NO_KEY}"]


async def test_a_server_that_is_busy_at_first_is_asked_again() -> None:
    async with endpoint() as server:
        assert isinstance((await answer(server.url, "busy once", model="m"))[-1], Finish)
        assert len(server.asked) == 2


@pytest.mark.parametrize("prompt", ["status 401", "cut", "no end"])
async def test_a_refusal_and_a_broken_answer_fail_without_the_servers_words(prompt: str) -> None:
    async with endpoint() as server:
        with pytest.raises(BackendFailed) as failure:
            await answer(server.url, prompt, model="m")
        assert "secret" not in str(failure.value)


async def test_a_context_that_is_too_small_is_told_from_other_refusals() -> None:
    async with endpoint() as server:
        with pytest.raises(PromptTooLong):
            await answer(server.url, "status 400", model="m")


async def test_a_server_that_is_away_fails_the_job() -> None:
    async with endpoint() as server:
        url = server.url
    with pytest.raises(BackendFailed):
        await answer(url, "hello", model="m")


async def test_a_cancel_closes_the_http_connection(tmp_path: Path) -> None:
    async with endpoint() as server, desk(tmp_path) as (nats, asking):
        env = {"TIDEGATE_AI_BACKEND": "auto", "OPENAI_BASE_URL": server.url}
        async with worker(nats, env) as (run, _):
            assert run.said("OPENAI_BASE_URL is set")
            await asking.ask("j1", "endless", temperature=0.5)
            await until(lambda: "Good x" in asking.text("j1"), "some text")
            assert server.asked[0]["temperature"] == 0.5
            await asking.cancel("j1")
            await asyncio.wait_for(server.disconnected.wait(), 5)
            assert (await asking.end("j1")).data["finish_reason"] == "cancelled"
