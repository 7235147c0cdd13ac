from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from opentelemetry.context import Context

from ai_worker.handlers.chat import Chat
from ai_worker.handlers.handler import Work
from ai_worker.job_errors import InvalidParams, PromptTooLong
from ai_worker.models.model import ChatRequest
from ai_worker.models.traced import TracedModel
from ai_worker.pieces import Finish, Piece, Text
from ai_worker.settings import WorkerSettings
from tidegate_common.contract.answers import Answer, Candidate
from tidegate_common.contract.jobs import Usage
from tidegate_common.telemetry.providers import telemetry


class Uncounting:
    """A model that counts no tokens and keeps what it was asked."""

    provider = "test"
    most: int | None = None

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []

    continues = True

    async def start(self) -> str:
        return "first"

    async def models(self) -> list[str]:
        return ["first"]

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
        wanted = WorkerSettings(**settings)
        chat = Chat(TracedModel(model, await model.start(), signals, wanted.ai_max_tokens), wanted)
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
    _, asked = await answer({"messages": user("hi"), "max_tokens": 10**30})
    assert asked[0].max_tokens == 2**31 - 1


@pytest.mark.parametrize(
    ("setting", "wish", "limit"),
    [(None, None, None), (None, 7, 7), (100, None, 100), (100, 7, 7), (100, 700, 100)],
)
async def test_an_answer_has_the_lower_of_the_callers_limit_and_the_operators(
    setting: int | None, wish: int | None, limit: int | None
) -> None:
    wanted = {} if wish is None else {"max_tokens": wish}
    _, (asked,) = await answer({"messages": user("hi"), **wanted}, ai_max_tokens=setting)
    assert asked.max_tokens == limit


async def test_all_messages_together_may_not_be_longer_than_the_limit() -> None:
    await answer({"messages": user("12345") * 2}, ai_max_prompt_chars=10)
    with pytest.raises(PromptTooLong, match="10 characters"):
        await answer({"messages": user("12345") * 2 + user("6")}, ai_max_prompt_chars=10)


@pytest.mark.parametrize("params", [{}, {"messages": []}, {"messages": user("x"), "n": 9}, {"messages": "x"}])
async def test_params_that_cannot_be_read_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await answer(params)


async def test_what_the_job_says_of_sampling_reaches_the_model() -> None:
    said = {"n": 2, "top_p": 0.5, "stop": ["x"], "seed": 3, "presence_penalty": 1.0, "frequency_penalty": -1.0}
    _, asked = await answer({"messages": user("hi"), **said})
    assert {name: getattr(asked[0], name) for name in said} == said


async def test_a_text_that_has_begun_is_gone_on_from_and_nothing_else() -> None:
    with telemetry("test", {}) as signals:
        model = Uncounting()
        chat = Chat(TracedModel(model, "first", signals), WorkerSettings())
        begun = Answer(candidates=[Candidate(content="It is")], pieces=2)
        assert chat.continues({"messages": user("hi")}, begun)
        assert not chat.continues({"messages": user("hi")}, Answer(candidates=[Candidate(reasoning="hm")], pieces=1))
        assert not chat.continues({"messages": user("hi"), "n": 2}, begun)
        work = Work("j1", 2, Context())
        work.earlier = begun
        async with aclosing(chat(work, {"messages": user("hi")})) as pieces:
            assert await anext(pieces) == Text("a")
        assert model.asked[0].prefix == "It is"
        model.continues = False
        assert not chat.continues({"messages": user("hi")}, begun)
