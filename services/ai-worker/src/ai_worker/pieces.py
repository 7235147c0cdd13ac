"""What a handler yields, and what a model streams. Each becomes an event of the job."""

from __future__ import annotations

import msgspec

from tidegate_common.contract.jobs import Usage


class Text(msgspec.Struct, frozen=True):
    """A part of the answer, of the candidate with that number."""

    content: str
    candidate: int = 0


class Reasoning(msgspec.Struct, frozen=True):
    """A part of the thinking before the answer."""

    content: str
    candidate: int = 0


class CandidateEnd(msgspec.Struct, frozen=True):
    """One of several candidates is complete, and why: `stop`, `length`, or what the backend says."""

    reason: str
    candidate: int


class Progress(msgspec.Struct, frozen=True):
    """How far the job has got: a share from 0 to 1, or None if only the note tells. Of two in a row the later one
    counts."""

    fraction: float | None = None
    note: str = ""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is no text: its bytes, or where it is to be had. A later one of that candidate and name replaces
    it."""

    name: str
    media_type: str
    content: bytes | None = None
    url: str | None = None
    final: bool = False
    candidate: int = 0


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a transcript, times in seconds; a later one of that number corrects it."""

    number: int
    text: str
    start: float
    end: float
    confidence: float
    final: bool = False


class Finish(msgspec.Struct, frozen=True):
    """The end. `usage` is None if the backend counts nothing; `model` is the one that answered."""

    reason: str
    usage: Usage | None = None
    model: str | None = None


class Used(msgspec.Struct, frozen=True):
    """What a call of the model has used so far, from a backend that says so before the end. Nobody is shown it."""

    usage: Usage


Piece = Text | Reasoning | CandidateEnd | Progress | Artifact | Segment | Finish
