from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from opentelemetry.context import Context

from ai_worker.errors import InvalidParams, PromptTooLong
from ai_worker.handlers.chat import Chat
from ai_worker.handlers.handler import Work
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import Finish, Piece, Text
from ai_worker.settings import WorkerSettings
from tidegate_common.contract.jobs import Usage
from tidegate_common.telemetry.providers import telemetry


class Uncounting:
    """A model that counts no tokens and keeps what it was asked."""

    provider = "test"

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []

    async def start(self) -> str:
        return "first"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece]:
        self.asked.append(request)
        yield Text("a")
        yield Text("b")
        yield Finish("stop")

    async def aclose(self) -> None:
        pass


async def answer(params: dict[str, Any], **settings: Any) -> tuple[list[Piece], list[ChatRequest]]:
    model = Uncounting()
    with telemetry("test", {}) as signals:
        chat = Chat(model, await model.start(), WorkerSettings(**settings), signals)
        async with aclosing(chat(Work("j1", 1, Context()), params)) as pieces:
            return [piece async for piece in pieces], model.asked


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


async def test_pieces_count_as_tokens_where_the_backend_counts_none() -> None:
    pieces, _ = await answer({"messages": user("hi")})
    assert pieces == [Text("a"), Text("b"), Finish("stop", Usage(0, 2))]


async def test_a_job_may_name_its_model_and_ask_for_less_than_the_most() -> None:
    _, asked = await answer({"messages": user("hi"), "model": "m", "max_tokens": 5})
    assert (asked[0].model, asked[0].max_tokens) == ("m", 5)
    _, asked = await answer({"messages": user("hi"), "max_tokens": 100_000}, ai_max_tokens=64)
    assert (asked[0].model, asked[0].max_tokens) == ("first", 64)


async def test_all_messages_together_may_not_be_longer_than_the_limit() -> None:
    await answer({"messages": user("12345") * 2}, ai_max_prompt_chars=10)
    with pytest.raises(PromptTooLong, match="10 characters"):
        await answer({"messages": user("12345") * 2 + user("6")}, ai_max_prompt_chars=10)


@pytest.mark.parametrize("params", [{}, {"messages": []}, {"messages": user("x"), "n": 2}, {"messages": "x"}])
async def test_params_that_cannot_be_read_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await answer(params)
