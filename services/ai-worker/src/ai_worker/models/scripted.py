"""Preset answers, one character at a time, always the same: for tests and for a look without a model.

It goes on from what there is of an answer, if the settings say so. `[fail]` in the prompt fails the job after the
first characters; `[long]` gives an answer of LONG characters.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ai_worker.job_errors import BackendFailed
from ai_worker.models.candidates import several
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import Finish, Piece, Reasoning, Text, Used
from tidegate_common.contract.jobs import Usage

LONG = 100_000
FAIL_AFTER = 5

THOUGHTS = {
    "en": ["The user asks something. ", "I answer with my preset text."],
    "zh": ["用户提了一个问题。", "我用预设的文字回答。"],
}
ANSWERS = {
    "en": "Hello! I am the scripted model of Tidegate: each character of this answer is an event of its own.",
    "zh": "你好！我是 Tidegate 的预设模型：这段回答的每个字都是一个单独的事件。",
}
_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


class ScriptedModel:
    """Thinks for `think_seconds`, then writes a character each `token_seconds`, at a fixed pace: what was held up is
    made up for. A character counts as a token."""

    provider = "scripted"
    most: int | None = None

    def __init__(self, think_seconds: float, token_seconds: float, continues: bool = False) -> None:
        self._think = think_seconds
        self._token = token_seconds
        self._continues = continues

    async def start(self) -> str:
        return "scripted"

    @property
    def continues(self) -> bool:
        return self._continues

    async def models(self) -> list[str]:
        return ["scripted"]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Used]:
        answer = several(self._candidate, request) if request.n > 1 else self._candidate(request)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    async def _candidate(self, request: ChatRequest) -> AsyncGenerator[Piece | Used]:
        """One answer. A seed other than 0 stands before it, so that candidates differ."""
        prompt = request.messages[-1].content
        read = sum(len(message.content) for message in request.messages)
        yield Used(Usage(read))
        language = "zh" if _CJK.search(prompt) else "en"
        if not request.prefix:
            thoughts = THOUGHTS[language]
            for thought in thoughts:
                yield Reasoning(thought)
                await asyncio.sleep(self._think / len(thoughts))
        answer = f"{request.seed}. {ANSWERS[language]}" if request.seed else ANSWERS[language]
        wanted = LONG if "[long]" in prompt else len(answer)
        limit = wanted if "[long]" in prompt or request.max_tokens is None else min(wanted, request.max_tokens)
        there = len(request.prefix)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, character in enumerate(itertools.islice(itertools.cycle(answer), there, limit), there):
            if number == FAIL_AFTER and "[fail]" in prompt:
                raise BackendFailed
            yield Text(character)
            # Against the clock, not after the last one: a pace that others are measured by must not drift.
            await asyncio.sleep(start + (number + 1 - there) * self._token - loop.time())
        yield Finish("stop" if limit == wanted else "length", Usage(read, max(0, limit - there)), "scripted")

    async def aclose(self) -> None:
        """Nothing was taken."""
