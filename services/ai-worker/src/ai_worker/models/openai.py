"""Any endpoint that speaks OpenAI's chat completions, through OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx2
from openai import APIStatusError, AsyncOpenAI, OpenAIError, omit
from openai.types.chat import ChatCompletionChunk

from ai_worker.errors import BackendFailed, JobError, PromptTooLong
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import Finish, Piece, Reasoning, Text
from tidegate_common.contract.jobs import Usage

NO_KEY = "none"
"""Sent where no key is set: the client insists on one, servers without keys ignore it."""

TIMEOUT = httpx2.Timeout(120, connect=10)
"""Seconds; the first is the longest pause between two pieces."""

CONTEXT_ERRORS = {"context_length_exceeded", "exceed_context_size_error"}


class OpenAIModel:
    """Answers from `base_url`; it is asked again twice where it fails before the first piece."""

    provider = "openai"

    def __init__(self, base_url: str, api_key: str, model: str = "", provider: str = "openai") -> None:
        self.provider = provider
        self._model = model
        self._client = AsyncOpenAI(base_url=base_url or None, api_key=api_key or NO_KEY, timeout=TIMEOUT, max_retries=2)

    async def start(self) -> str:
        """The model for requests that name none; empty where the endpoint does not say now: asked again later."""
        if not self._model:
            try:
                models = await self._client.models.list()
            except (OpenAIError, httpx2.HTTPError):
                return ""
            self._model = models.data[0].id if models.data else ""
        return self._model

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece]:
        finish: str | None = None
        usage: Usage | None = None
        model = request.model or await self.start()
        try:
            answer = await self._ask(request, model)
            async with answer:
                async for chunk in answer:
                    for piece in _pieces(chunk):
                        yield piece
                    model = chunk.model or model
                    if chunk.usage is not None:
                        usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                    for choice in chunk.choices:
                        finish = choice.finish_reason or finish
        except (OpenAIError, httpx2.HTTPError) as error:
            raise _failure(error) from error
        if finish is None:
            raise BackendFailed("The model broke off in the middle of its answer.")
        yield Finish(finish, usage, model)

    async def _ask(self, request: ChatRequest, model: str) -> Any:
        messages: Any = [{"role": message.role, "content": message.content} for message in request.messages]
        return await self._client.chat.completions.create(
            model=model,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=request.max_tokens,
            temperature=omit if request.temperature is None else request.temperature,
        )

    async def aclose(self) -> None:
        await self._client.close()


def _pieces(chunk: ChatCompletionChunk) -> Iterator[Piece]:
    for choice in chunk.choices:
        delta: Any = choice.delta
        if delta is None:
            continue
        # Two names for one thing: vLLM, DeepSeek and llama.cpp write the first, others the second.
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        if isinstance(thought, str) and thought:
            yield Reasoning(thought)
        if delta.content:
            yield Text(delta.content)


def _failure(error: Exception) -> JobError:
    body = error.body if isinstance(error, APIStatusError) else None
    if isinstance(body, dict) and CONTEXT_ERRORS & {str(body.get("code")), str(body.get("type"))}:
        return PromptTooLong("it does not fit into the model's context")
    return BackendFailed()
