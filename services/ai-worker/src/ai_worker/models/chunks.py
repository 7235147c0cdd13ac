"""Reads an answer's chunks, whatever an endpoint has put into them: nothing of them is taken on trust.

OpenAI's client hands on what came without looking at it: a text may be a number, an index missing, a count a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai import AsyncOpenAI, BaseModel
from openai._streaming import ServerSentEvent, SSEDecoder

from ai_worker.models.values import count, word
from ai_worker.pieces import Piece, Reasoning, Text
from tidegate_common.contract.jobs import Usage


class Client(AsyncOpenAI):
    """OpenAI's, which reads bytes that are no UTF-8 as U+FFFD, and remembers that an answer said that it was over."""

    def _make_sse_decoder(self) -> SSEDecoder:
        return Decoder()


class Decoder(SSEDecoder):
    """Of one answer; `over` once it has said `[DONE]`. The pinned client's names: test_odd_answers.py holds them."""

    over = False

    def _decode_lines(self, lines: Iterator[bytes]) -> Iterator[ServerSentEvent]:
        for line in lines:
            event = self.decode(line.decode(errors="replace"))
            if event is not None:
                self.over = self.over or event.data.startswith("[DONE]")
                yield event


class Choices:
    """The choices of an answer of which `count` were asked for, each by its number among them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._only: int | None = None
        """Index of the one choice that counts if one was asked for: the first that comes, whatever it is."""
        self.reasons: dict[int, str] = {}
        """Why each has ended that has."""

    def pieces(self, chunk: object) -> Iterator[tuple[Piece | None, int, str]]:
        """What `chunk` adds to each: its piece, its candidate's number, and why it ends there (empty: it goes on)."""
        choices = _field(chunk, "choices")
        for choice in choices if isinstance(choices, list) else ():
            candidate = self._candidate(_field(choice, "index"))
            if candidate is None:
                continue
            delta = _field(choice, "delta")
            # Two names for one thing: vLLM, DeepSeek and llama.cpp write the first, others the second.
            thought = _text(_field(delta, "reasoning_content")) or _text(_field(delta, "reasoning"))
            if thought:
                yield Reasoning(thought, candidate), candidate, ""
            text = _text(_field(delta, "content"))
            if text:
                yield Text(text, candidate), candidate, ""
            reason = _field(choice, "finish_reason")
            if reason:
                self.reasons[candidate] = word(reason) or "stop"
                yield None, candidate, self.reasons[candidate]

    def _candidate(self, index: object) -> int | None:
        """None for a choice that nobody asked for."""
        number = count(index)
        if self._count > 1:
            return number if number < self._count else None
        if self._only is None:
            self._only = number
        return 0 if number == self._only else None


def usage(chunk: object) -> Usage | None:
    """What the chunk says has been used so far."""
    told = _field(chunk, "usage")
    if not _is_object(told):
        return None
    return Usage(count(_field(told, "prompt_tokens")), count(_field(told, "completion_tokens")))


def timed(chunk: object) -> Usage | None:
    """The same as llama.cpp says it, in `timings`."""
    told = _field(chunk, "timings")
    if not _is_object(told):
        return None
    read = count(_field(told, "prompt_n")) + count(_field(told, "cache_n"))
    return Usage(read, count(_field(told, "predicted_n")))


def model(chunk: object) -> str:
    """Which model the chunk says it is of; empty if it does not."""
    return word(_field(chunk, "model"))


def models(found: object) -> list[str]:
    """The names in an endpoint's list of models."""
    listed = _field(found, "data")
    names = [word(_field(each, "id")) for each in listed] if isinstance(listed, list) else []
    return [name for name in names if name]


def _text(value: object) -> str:
    """A text, or a list of parts (Mistral's), of which those of the type `text` count; empty for all else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    parts = [_field(part, "text") for part in value if _field(part, "type") == "text"]
    return "".join(part for part in parts if isinstance(part, str))


def _is_object(value: object) -> bool:
    return isinstance(value, dict | BaseModel)


def _field(value: object, name: str) -> Any:
    """None if `value` has no such field, or is nothing that has fields."""
    if isinstance(value, dict):
        return value.get(name)
    return getattr(value, name, None) if isinstance(value, BaseModel) else None
