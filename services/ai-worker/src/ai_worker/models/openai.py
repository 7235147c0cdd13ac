"""Any endpoint that speaks OpenAI's chat completions, through OpenAI's own client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import httpx2
from openai import AuthenticationError, OpenAIError, omit

from ai_worker.job_errors import JobError
from ai_worker.models import chunks
from ai_worker.models.endpoint_failures import BrokenStream, UnreadableStream, failure, pause, refuses_name
from ai_worker.models.limit_names import MAX_COMPLETION_TOKENS, MAX_TOKENS, OTHER, LimitNames
from ai_worker.models.model import ChatRequest
from ai_worker.pieces import CandidateEnd, Finish, Piece, Used
from tidegate_common.contract.jobs import Usage
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

NO_KEY = "none"
"""Sent if no key is set: the client insists on one, servers without keys ignore it."""

CONNECT_SECONDS = 10.0
LIST_SECONDS = 120.0

Continue = Literal["none", "assistant", "prefix", "continue_final_message"]
"""How an endpoint is asked to go on from what is there: not at all, by a last message of the assistant alone
(llama.cpp), by one with `prefix: true` (DeepSeek's beta, Mistral), or by vLLM's parameter of that name."""

CHARACTERS_PER_TOKEN = 4
"""Roughly: what is there already is taken off the most tokens that an answer may have."""


class OpenAIModel:
    """Answers from `base_url`; it is asked again if it fails before the first piece, after what its `Retry-After`
    says or with exponential back-off, and never after that."""

    provider = "openai"
    most: int | None = None

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str = "",
        provider: str = "openai",
        *,
        continue_by: Continue = "none",
        retries: int = 4,
        silence_seconds: float | None = None,
        timings: bool = False,
    ) -> None:
        """`silence_seconds` is the longest pause before the first piece and between two. `timings`: it is
        llama.cpp's server, and tells what was read and written in each chunk when asked to."""
        self.provider = provider
        self._model = model
        self._continue = continue_by
        self._timings = timings
        self._retries = retries
        self._limits = LimitNames()
        self._asked_again = Trouble(log, "the model's endpoint fails, and is asked again", level=logging.INFO)
        timeout = httpx2.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        # It would ask again only until the head of the answer is there, and also while the question is being worked on.
        self._client = chunks.Client(
            base_url=base_url or None, api_key=api_key or NO_KEY, timeout=timeout, max_retries=0
        )

    @property
    def continues(self) -> bool:
        return self._continue != "none"

    async def start(self) -> str:
        """The model for requests that name none; empty if the endpoint does not say now: it is asked again later."""
        if not self._model:
            try:
                models = await self.models()
            except JobError:
                return ""
            self._model = models[0] if models else ""
        return self._model

    async def models(self) -> list[str]:
        try:
            found = await self._client.with_options(timeout=LIST_SECONDS, max_retries=self._retries).models.list()
        except Exception as error:  # a list that is no JSON is no reason to end, either
            raise failure(error, "") from error
        return chunks.models(found)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Used]:
        model = request.model or await self.start()
        limit, exchanged = self._limits.of(model), False
        begun, number = False, 1
        while True:
            try:
                async with aclosing(self._once(request, model, limit)) as pieces:
                    async for piece in pieces:
                        if exchanged:  # now, since whoever has the last piece asks for no more
                            self._limits.keep(model, limit)
                        begun = begun or not isinstance(piece, Used)
                        yield piece
                return
            except (OpenAIError, httpx2.HTTPError, BrokenStream, UnreadableStream) as error:
                if request.max_tokens is not None and not (begun or exchanged) and refuses_name(error, limit):
                    # Under its other name at once: no answer was begun, so this is no try.
                    limit, exchanged = OTHER[limit], True
                    continue
                seconds = None if begun or number > self._retries else pause(error, number)
                if seconds is None:
                    hidden = isinstance(error, AuthenticationError)  # some endpoints repeat the key, which no log needs
                    raise failure(error, model) from (None if hidden else error)
                self._asked_again.note(type(error).__name__)
            number += 1
            await asyncio.sleep(seconds)

    async def _once(self, request: ChatRequest, model: str, limit: str) -> AsyncGenerator[Piece | Used]:
        """One question, and what comes of it. Raises what the client does, BrokenStream, UnreadableStream."""
        choices = chunks.Choices(request.n)
        usage: Usage | None = None
        async with await self._ask(request, model, limit) as answer, aclosing(_read(answer)) as found:
            async for chunk in found:
                ends = []
                for piece, candidate, reason in choices.pieces(chunk):
                    if piece is not None:
                        yield piece
                    else:
                        ends.append(CandidateEnd(reason, candidate))
                model = chunks.model(chunk) or model
                usage = chunks.usage(chunk) or usage
                used = usage or chunks.timed(chunk)
                if used is not None:
                    yield Used(used)
                if request.n > 1:
                    for end in ends:
                        yield end
            if len(choices.reasons) < request.n and not _is_over(answer):
                raise BrokenStream
        yield Finish(choices.reasons[min(choices.reasons)] if choices.reasons else "stop", usage, model)

    async def _ask(self, request: ChatRequest, model: str, limit: str) -> Any:
        messages: Any = [{"role": message.role, "content": message.content} for message in request.messages]
        extra: dict[str, Any] = {"timings_per_token": True} if self._timings else {}
        options: Any = {"include_usage": True}
        if self._continue == "continue_final_message":
            options["continuous_usage_stats"] = True  # vLLM's too
        most = request.max_tokens
        if request.prefix:
            last: dict[str, Any] = {"role": "assistant", "content": request.prefix}
            if self._continue == "prefix":
                last["prefix"] = True
            elif self._continue == "continue_final_message":
                extra.update(continue_final_message=True, add_generation_prompt=False)
            messages.append(last)
            if most is not None:
                most = max(1, most - len(request.prefix) // CHARACTERS_PER_TOKEN)
        return await self._client.chat.completions.create(
            model=model,
            messages=messages,
            stream=True,
            stream_options=options,
            max_tokens=_given(most) if limit == MAX_TOKENS else omit,
            max_completion_tokens=_given(most) if limit == MAX_COMPLETION_TOKENS else omit,
            temperature=_given(request.temperature),
            n=request.n if request.n > 1 else omit,
            top_p=_given(request.top_p),
            stop=request.stop or omit,
            seed=_given(request.seed),
            presence_penalty=_given(request.presence_penalty),
            frequency_penalty=_given(request.frequency_penalty),
            extra_body=extra or None,
        )

    async def aclose(self) -> None:
        await self._client.close()


async def _read(answer: Any) -> AsyncGenerator[object]:
    """The chunks of an answer. Raises what the client does for an endpoint that fails, and UnreadableStream."""
    try:
        async for chunk in answer:
            yield chunk
    except (OpenAIError, httpx2.HTTPError):
        raise
    except Exception as error:  # of JSON that is none, or of a depth that nobody reads: it would come again
        raise UnreadableStream from error


def _is_over(answer: Any) -> bool:
    """Whether the endpoint has said so: some give no reason for an answer's end."""
    decoder = answer._decoder
    return isinstance(decoder, chunks.Decoder) and decoder.over


def _given(value: Any) -> Any:
    return omit if value is None else value
