"""What pieces look like as events: which go together, how long a text may be, and the data of each. No NATS here."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from ai_worker.pieces import Artifact, CandidateEnd, Piece, Progress, Reasoning, Segment, Text
from tidegate_common.contract import answers
from tidegate_common.contract.answers import AiArtifact, AiProgress, AiResponse, AiTranscript

TEXT_BYTES = 60_000
"""Text whose event would be a longer line is split: lines of over 64 kB stop many a client for good."""

_ESCAPED = re.compile("[\u2028\u2029\x85]")
_GROWTH = 4
"""Bytes, at most, by which such a character grows: gateways write it as an escape."""


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """`pieces` with each run of text of one type and candidate as one, and each run of progress as its last.

    The order is kept for each candidate: those of several come mixed, and nobody shows them as one text.
    """
    found: list[Piece] = []
    last: dict[int, int] = {}
    for piece in pieces:
        candidate = getattr(piece, "candidate", -1)
        at = last.get(candidate)
        before = None if at is None else found[at]
        if isinstance(piece, Text | Reasoning) and type(before) is type(piece):
            assert at is not None
            found[at] = replace(piece, content=before.content + piece.content)
        elif isinstance(piece, Progress) and isinstance(before, Progress):
            assert at is not None
            found[at] = piece
        else:
            last[candidate] = len(found)
            found.append(piece)
    return found


def halves(piece: Piece) -> list[Piece]:
    """A text in two parts; nothing for what can't be split."""
    if not isinstance(piece, Text | Reasoning) or len(piece.content) < 2:
        return []
    middle = len(piece.content) // 2
    return [replace(piece, content=piece.content[:middle]), replace(piece, content=piece.content[middle:])]


def too_long(piece: Piece, encoded: bytes) -> bool:
    """Whether the event of a text would be a longer line than clients read, as a gateway writes it."""
    if not isinstance(piece, Text | Reasoning):
        return False
    growth = 0 if piece.content.isascii() else _GROWTH * len(_ESCAPED.findall(piece.content))
    return len(encoded) + growth > TEXT_BYTES


def event_of(piece: Piece, job_id: str, index: int) -> tuple[str, msgspec.Struct]:
    """The type and the data of the job's event number `index`."""
    if isinstance(piece, Text | Reasoning):
        event_type = answers.RESPONSE if isinstance(piece, Text) else answers.REASONING
        return event_type, AiResponse(job_id=job_id, index=index, content=piece.content, candidate=piece.candidate)
    if isinstance(piece, CandidateEnd):
        return answers.RESPONSE, AiResponse(
            job_id=job_id, index=index, content="", candidate=piece.candidate, finish_reason=piece.reason
        )
    if isinstance(piece, Progress):
        return answers.PROGRESS, AiProgress(
            job_id=job_id, state="running", index=index, fraction=piece.fraction, note=piece.note
        )
    if isinstance(piece, Artifact):
        return answers.ARTIFACT, AiArtifact(
            job_id=job_id,
            index=index,
            name=piece.name,
            media_type=piece.media_type,
            content=None if piece.content is None else base64.b64encode(piece.content).decode(),
            url=piece.url,
            final=piece.final,
            candidate=piece.candidate,
        )
    assert isinstance(piece, Segment)
    return answers.TRANSCRIPT, AiTranscript(
        job_id=job_id,
        index=index,
        segment=piece.number,
        text=piece.text,
        start=piece.start,
        end=piece.end,
        confidence=piece.confidence,
        final=piece.final,
    )
