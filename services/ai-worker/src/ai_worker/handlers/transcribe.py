"""Jobs of the kind `transcribe`: speech as text, with what was first heard corrected later.

No engine for speech is shipped: `scripted` says a preset text. What an engine has to give is `TranscriptSource`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal, Protocol

import msgspec

from ai_worker.handlers.handler import Work
from ai_worker.job_errors import InvalidParams
from ai_worker.pieces import Finish, Piece, Progress, Segment


class TranscribeParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`params` of a job of the kind `transcribe`."""

    source: str = "scripted"
    language: Literal["en", "zh"] = "en"


class TranscriptSource(Protocol):
    """Something that hears."""

    def segments(self, params: TranscribeParams) -> AsyncGenerator[Segment]:
        """What is said: a segment first as it seems, then, under the same number, as it was, `final` at last."""


class _Said(msgspec.Struct, frozen=True):
    heard: str
    said: str
    start: float
    end: float


SCRIPT = {
    "en": (
        _Said("the tied is coming", "The tide is coming in.", 0.0, 1.8),
        _Said("boats rice in the harbour", "Boats rise in the harbour,", 1.8, 3.4),
        _Said("and nobody has to wait any mower", "and nobody has to wait any more.", 3.4, 5.6),
    ),
    "zh": (
        _Said("潮水正在长", "潮水正在涨。", 0.0, 1.5),
        _Said("船在岗口升起", "船在港口升起。", 1.5, 3.2),
    ),
}


class ScriptedSource:
    """Says SCRIPT, `pause_seconds` after each piece."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause = pause_seconds

    async def segments(self, params: TranscribeParams) -> AsyncGenerator[Segment]:
        script = SCRIPT[params.language]
        for number, each in enumerate(script):
            times = {"number": number, "start": each.start, "end": each.end}
            yield Segment(text=each.heard, confidence=0.46, **times)  # type: ignore[arg-type]
            await asyncio.sleep(self._pause)
            yield Segment(text=each.said, confidence=0.94, final=True, **times)  # type: ignore[arg-type]
            await asyncio.sleep(self._pause)


class Transcribe:
    """Hands on what the source hears."""

    def __init__(self, sources: Mapping[str, TranscriptSource]) -> None:
        self._sources = sources

    async def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        try:
            wanted = msgspec.convert(params, TranscribeParams)
        except msgspec.ValidationError as error:
            raise InvalidParams(str(error)) from error
        source = self._sources.get(wanted.source)
        if source is None:
            raise InvalidParams(f"source: one of {', '.join(self._sources)}")
        async with aclosing(source.segments(wanted)) as segments:
            async for segment in segments:
                yield segment
                if segment.final:
                    yield Progress(note=f"{segment.end:g} seconds")
        yield Finish("stop")
