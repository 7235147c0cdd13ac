"""Preset answers, one character at a time, always the same: for tests and for a look without a model.

`[fail]` in the prompt fails the job after the first characters; `[long]` gives an answer of LONG characters.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator

from ai_worker.errors import BackendFailed
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import Finish, Piece, Reasoning, Text
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
    """Thinks for `think_seconds`, then writes a character each `token_seconds`, at a fixed pace: who was held up makes
    up for it. A character counts as a token."""

    provider = "scripted"

    def __init__(self, think_seconds: float, token_seconds: float) -> None:
        self._think = think_seconds
        self._token = token_seconds

    async def start(self) -> str:
        return "scripted"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece]:
        prompt = request.messages[-1].content
        language = "zh" if _CJK.search(prompt) else "en"
        thoughts = THOUGHTS[language]
        for thought in thoughts:
            yield Reasoning(thought)
            await asyncio.sleep(self._think / len(thoughts))
        answer = ANSWERS[language]
        wanted = LONG if "[long]" in prompt else len(answer)
        limit = wanted if "[long]" in prompt else min(wanted, request.max_tokens)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, character in enumerate(itertools.islice(itertools.cycle(answer), limit)):
            if number == FAIL_AFTER and "[fail]" in prompt:
                raise BackendFailed
            yield Text(character)
            # Against the clock, not after the last one: a pace that others are measured by must not drift.
            await asyncio.sleep(start + (number + 1) * self._token - loop.time())
        usage = Usage(sum(len(message.content) for message in request.messages), limit)
        yield Finish("stop" if limit == wanted else "length", usage, "scripted")

    async def aclose(self) -> None:
        """Nothing was taken."""
