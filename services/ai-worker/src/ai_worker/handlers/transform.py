"""Jobs of the kind `transform`: a text streamed through a prompt, as in a translation.

A text that is longer than a model's context goes through it in passages, cut where a paragraph or a sentence ends.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ai_worker.handlers.handler import Work
from ai_worker.job_errors import InvalidParams
from ai_worker.models.model import ChatRequest
from ai_worker.models.traced import TracedModel
from ai_worker.pieces import Finish, Piece, Progress, Text
from ai_worker.settings import WorkerSettings
from tidegate_common.contract.jobs import ChatMessage, Usage, passage_characters

MAX_TEXT = 200_000
_ENDS = (re.compile(r"\n\s*\n"), re.compile(r"(?<=[.!?])\s+|(?<=[。！？])"), re.compile(r"\s+"))
"""Where a text may be cut, the best places first."""


class TransformParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`params` of a job of the kind `transform`."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    instruction: Annotated[str, Meta(min_length=1, max_length=2_000)]
    model: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class Passage(NamedTuple):
    """A part of the text, and what stood between it and the next."""

    text: str
    after: str


def passages(text: str, most: int) -> list[Passage]:
    """`text` in parts of up to `most` characters; joined with what stood between them they are the text again."""
    found = []
    while len(text) > most:
        start, end = _cut(text, most)
        found.append(Passage(text[:start], text[start:end]))
        text = text[end:]
    return [*found, Passage(text, "")]


def _cut(text: str, most: int) -> tuple[int, int]:
    """The last good place within `most` characters: where the gap between two passages starts and ends."""
    for pattern in _ENDS:
        places = [match.span() for match in pattern.finditer(text, 1, most + 1) if match.start() <= most]
        if places and places[-1][0] > most // 4:
            return places[-1]
    return most, most


class Transform:
    """Yields the passages' answers one after another, and how much of the text is done."""

    def __init__(self, model: TracedModel, settings: WorkerSettings) -> None:
        self._model = model
        self._settings = settings

    async def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        try:
            wanted = msgspec.convert(params, TransformParams)
        except msgspec.ValidationError as error:
            raise InvalidParams(str(error)) from error
        limit = self._model.limit(work.max_tokens)
        parts = passages(wanted.text, passage_characters(limit))
        outer, usage, last, cut = work.trace, Usage(), Finish("stop"), False
        for number, passage in enumerate(parts):
            if number:
                yield Progress(number / len(parts))
            work.trace = outer  # each call of the model is a span beside the others
            if passage.text.strip():
                async with aclosing(self._model.ask(self._request(wanted, passage.text, limit), work)) as answer:
                    async for piece in answer:
                        if isinstance(piece, Finish):
                            last, usage = piece, usage + (piece.usage or Usage())
                            cut = cut or piece.reason == "length"
                        else:
                            yield piece
            if passage.after:
                yield Text(passage.after)
        yield Finish("length" if cut else last.reason, usage, last.model)

    def _request(self, wanted: TransformParams, text: str, limit: int | None) -> ChatRequest:
        told = f"{wanted.instruction}. Answer with the resulting text alone, without comments."
        return ChatRequest(
            messages=[ChatMessage("system", told), ChatMessage("user", text)],
            model=wanted.model or self._model.default,
            max_tokens=limit,
            temperature=wanted.temperature,
        )
