import asyncio
from contextlib import aclosing

import pytest

from ai_worker.job_errors import BackendFailed
from ai_worker.models.model import ChatRequest
from ai_worker.models.scripted import ANSWERS, FAIL_AFTER, ScriptedModel
from ai_worker.pieces import Finish, Piece, Reasoning, Text, Used
from tests.support.skipping_loop import skipping_loop
from tidegate_common.contract.jobs import ChatMessage, Usage


def request(prompt: str, max_tokens: int = 512) -> ChatRequest:
    return ChatRequest(messages=[ChatMessage(role="user", content=prompt)], model="scripted", max_tokens=max_tokens)


async def answer(asked: ChatRequest) -> list[Piece]:
    async with aclosing(ScriptedModel(0, 0).stream(asked)) as pieces:
        return [piece async for piece in pieces if not isinstance(piece, Used)]


@pytest.mark.parametrize(("prompt", "language"), [("hello", "en"), ("你好", "zh"), ("explain 云", "zh"), ("", "en")])
async def test_it_answers_in_the_language_of_the_prompt_one_character_at_a_time(prompt: str, language: str) -> None:
    pieces = await answer(request(prompt))
    assert isinstance(pieces[0], Reasoning)
    assert [piece.content for piece in pieces if isinstance(piece, Text)] == list(ANSWERS[language])
    assert pieces[-1] == Finish("stop", Usage(len(prompt), len(ANSWERS[language])), "scripted")


async def test_the_same_question_has_the_same_answer() -> None:
    assert await answer(request("hello")) == await answer(request("hello"))


async def test_a_limit_ends_the_answer_with_the_reason_length() -> None:
    *_, last = await answer(request("hello", max_tokens=3))
    assert last == Finish("length", Usage(5, 3), "scripted")


async def test_the_marker_fail_fails_after_the_first_characters() -> None:
    seen: list[Piece | Used] = []

    async def read() -> None:
        async with aclosing(ScriptedModel(0, 0).stream(request("[fail]"))) as pieces:
            async for piece in pieces:
                seen.append(piece)  # noqa: PERF401 - what came before the failure counts

    with pytest.raises(BackendFailed):
        await read()
    assert sum(isinstance(piece, Text) for piece in seen) == FAIL_AFTER


def test_who_was_held_up_gets_what_is_due_at_once() -> None:
    async def held_up() -> float:
        loop = asyncio.get_running_loop()
        async with aclosing(ScriptedModel(0, 0.1).stream(request("hello"))) as pieces:
            characters = (piece async for piece in pieces if isinstance(piece, Text))
            await anext(characters)
            await asyncio.sleep(0.5)  # the hold-up itself, five characters long
            start = loop.time()
            for _ in range(4):
                await anext(characters)
            return loop.time() - start

    with skipping_loop() as loop:
        assert loop.run_until_complete(held_up()) == 0, (
            "four characters took as long as if each had waited for the one before"
        )
