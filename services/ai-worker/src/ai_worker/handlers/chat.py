"""Jobs of the kind `chat`: a conversation's next turn, from the model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from ai_worker.handlers.handler import Work
from ai_worker.job_errors import InvalidParams, PromptTooLong
from ai_worker.models.model import ChatRequest
from ai_worker.models.traced import TracedModel
from ai_worker.pieces import Piece
from ai_worker.settings import WorkerSettings
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import MAX_CANDIDATES, ChatParams


class Chat:
    """Goes on from what an earlier worker has stored, if the model can."""

    def __init__(self, model: TracedModel, settings: WorkerSettings) -> None:
        self._model = model
        self._settings = settings

    async def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        request = self._request(params)
        if work.earlier is not None:
            request = msgspec.structs.replace(request, prefix=work.earlier.candidates[0].content)
        async with aclosing(self._model.ask(request, work)) as answer:
            async for piece in answer:
                yield piece

    def continues(self, params: dict[str, Any], earlier: Answer) -> bool:
        """A text that has begun, of a single candidate: several have several places, and thinking has no end yet."""
        single = params.get("n", 1) == 1 and len(earlier.candidates) == 1
        return self._model.continues and single and bool(earlier.candidates[0].content)

    def _request(self, params: dict[str, Any]) -> ChatRequest:
        """Raises InvalidParams, PromptTooLong."""
        try:
            chat = msgspec.convert(params, ChatParams)
        except msgspec.ValidationError as error:
            raise InvalidParams(str(error)) from error
        if not chat.messages:
            raise InvalidParams("messages: at least one")
        if not 1 <= chat.n <= MAX_CANDIDATES:
            raise InvalidParams(f"n: 1 to {MAX_CANDIDATES} answers")
        limit = self._settings.ai_max_prompt_chars
        if sum(len(message.content) for message in chat.messages) > limit:
            raise PromptTooLong(f"{limit} characters are allowed")
        return ChatRequest(
            messages=chat.messages,
            model=chat.model or self._model.default,
            max_tokens=self._model.limit(chat.max_tokens),
            temperature=chat.temperature,
            n=chat.n,
            top_p=chat.top_p,
            stop=chat.stop,
            seed=chat.seed,
            presence_penalty=chat.presence_penalty,
            frequency_penalty=chat.frequency_penalty,
        )
