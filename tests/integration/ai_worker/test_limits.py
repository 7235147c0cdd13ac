"""The limit of an answer goes to the backend only where somebody has named one, under the name that it takes."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ai_worker.job_errors import InvalidParams
from ai_worker.models.model import ChatRequest
from ai_worker.models.openai import OpenAIModel
from ai_worker.pieces import Finish
from tests.integration.ai_worker.endpoint import (
    Endpoint,
    at_fastapi,
    at_mistral,
    at_openai,
    endpoint,
    too_large,
)
from tests.integration.ai_worker.support import FAST, desk, worker
from tidegate_common.contract.jobs import ChatMessage, JobStatus

NAMES = ("max_tokens", "max_completion_tokens")


def limits(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: asked[name] for name in NAMES if name in asked}


async def ask(model: OpenAIModel, name: str = "m", limit: int | None = 9) -> None:
    request = ChatRequest(messages=[ChatMessage("user", "hello")], model=name, max_tokens=limit)
    async with aclosing(model.stream(request)) as pieces:
        assert isinstance([piece async for piece in pieces][-1], Finish)


def sent(server: Endpoint) -> list[dict[str, Any]]:
    found, server.asked = [limits(asked) for asked in server.asked], []
    return found


@pytest.mark.parametrize(
    ("setting", "wish", "expected"),
    [(None, None, {}), ("100", 700, {"max_tokens": 100})],
)
async def test_a_limit_is_sent_where_the_caller_or_the_operator_names_one(
    tmp_path: Path, setting: str | None, wish: int | None, expected: dict[str, int]
) -> None:
    """512 was sent where nobody had asked for it: answers ended in the middle, and OpenAI's reasoning models, which
    refuse the name, gave none at all."""
    async with endpoint() as server, desk(tmp_path) as (nats, asking):
        env = {**FAST, "TIDEGATE_AI_BACKEND": "openai", "OPENAI_BASE_URL": server.url, "TIDEGATE_AI_MODEL": "m"}
        async with worker(nats, env if setting is None else {**env, "TIDEGATE_AI_MAX_TOKENS": setting}):
            wanted: dict[str, Any] = {} if wish is None else {"max_tokens": wish}
            await asking.ask("j1", "hello", **wanted)
            await asking.state("j1", JobStatus.DONE)
            await asking.put("j2", "transform", {"text": "hello", "instruction": "Shout"})
            await asking.state("j2", JobStatus.DONE)
            chat, transform = sent(server)
            assert chat == expected
            assert transform == ({} if setting is None else {"max_tokens": 100})


@pytest.mark.parametrize("refusal", [at_openai, at_mistral, at_fastapi])
async def test_a_name_that_is_refused_is_not_sent_again_and_takes_no_try(refusal: Any) -> None:
    """Which of the two names an endpoint takes can only be found out: it is remembered for each model, and the
    question that found it out is neither paid nor counted among the tries."""
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", retries=0)
        server.refuses, server.refusal = {"max_tokens"}, refusal
        await ask(model)
        assert sent(server) == [{"max_tokens": 9}, {"max_completion_tokens": 9}]
        await ask(model)
        assert sent(server) == [{"max_completion_tokens": 9}]
        server.refuses = set()
        await ask(model, "another")
        assert sent(server) == [{"max_tokens": 9}], "of another model nothing is known"
        server.refuses = {"max_completion_tokens"}
        await ask(model)
        assert sent(server) == [{"max_completion_tokens": 9}, {"max_tokens": 9}], "the endpoint was exchanged"
        await ask(model)
        assert sent(server) == [{"max_tokens": 9}]
        await ask(model, limit=None)
        assert sent(server) == [{}]
        await model.aclose()


async def test_a_worker_remembers_what_it_found_out(tmp_path: Path) -> None:
    """A job is done with its answer's last piece, and asks for no more: what was to be noted after that never was, so
    that each job's question was refused once."""
    async with endpoint() as server, desk(tmp_path) as (nats, asking):
        env = {**FAST, "TIDEGATE_AI_BACKEND": "openai", "OPENAI_BASE_URL": server.url, "TIDEGATE_AI_MODEL": "m"}
        server.refuses = {"max_tokens"}
        async with worker(nats, env):
            for job_id in ("j1", "j2"):
                await asking.ask(job_id, "hello", max_tokens=7)
                await asking.state(job_id, JobStatus.DONE)
        assert sent(server) == [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_completion_tokens": 7}]


async def test_where_both_names_or_the_number_are_refused_the_caller_is_told_which() -> None:
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", retries=3)
        for refusal, names in ((at_openai, [*NAMES]), (too_large, ["max_tokens"])):
            server.refuses, server.refusal = {*NAMES}, refusal
            with pytest.raises(InvalidParams, match="max_"):
                await ask(model, refusal.__name__)
            assert sent(server) == [{name: 9} for name in names]
        server.refuses = set()
        await ask(model, at_openai.__name__)
        assert sent(server) == [{"max_tokens": 9}], "what was refused too is not remembered"
        await model.aclose()


async def test_what_is_refused_within_the_stream_is_asked_for_under_the_other_name_too() -> None:
    async with endpoint() as server:
        model = OpenAIModel(server.url, "", retries=0)
        request = ChatRequest(messages=[ChatMessage("user", "limit in the stream")], model="m", max_tokens=9)
        async with aclosing(model.stream(replace(request))) as pieces:
            assert isinstance([piece async for piece in pieces][-1], Finish)
        assert sent(server) == [{"max_tokens": 9}, {"max_completion_tokens": 9}]
        await model.aclose()
