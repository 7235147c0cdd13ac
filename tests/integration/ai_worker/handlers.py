"""Handlers of a worker under test, as a user would write them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ai_worker.api import (
    Artifact,
    BackendFailed,
    CandidateEnd,
    Finish,
    InvalidParams,
    Piece,
    Progress,
    Segment,
    Text,
    Usage,
    Work,
)

LARGE = Artifact(name="large", media_type="application/octet-stream", content=bytes(2_000_000))
"""More than an event may hold."""


async def large(work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
    """Yields what no event can hold, and then an error, or an end, by `params["then"]`."""
    yield Text("a")
    yield LARGE
    if params["then"] == "error":
        raise BackendFailed
    yield Finish("stop")


async def linked(work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
    """An artifact by reference."""
    yield Progress(0.5, "drawn")
    yield Artifact(name="plan", media_type="image/svg+xml", url=params["url"], final=True)
    yield Finish("stop")


HALF = "a \ud83d"
BAD: Any = 5
PIECES: dict[str, list[Piece]] = {
    "note": [Progress(float("nan"), HALF)],
    "artifact": [Artifact(name=HALF, media_type=HALF, url=HALF)],
    "segment": [Segment(number=0, text=HALF, start=float("inf"), end=float("nan"), confidence=0.5)],
    "candidate's end": [Text("a", 1), CandidateEnd(HALF, 1)],
    "finish": [Finish(HALF, Usage(1, 2), HALF)],
    "halves of two kinds": [Text(HALF), Progress(0.5), Text("\ude00")],
    "text that is none": [Text(BAD)],
    "bytes that are none": [Artifact(name="a", media_type="b", content=BAD)],
    "candidate past all": [Text("a", 10**9)],
    "usage that is none": [Finish("stop", Usage(BAD, "many"))],  # type: ignore[arg-type]
    "reason that is none": [Finish(BAD)],
    "no piece": [BAD],
    "error": [],
}
ODD_ENDS = {
    "note": None,
    "artifact": None,
    "segment": None,
    "candidate's end": None,
    "finish": None,
    "halves of two kinds": None,
    "text that is none": "backend_error",
    "bytes that are none": "internal_error",
    "candidate past all": "backend_error",
    "usage that is none": "backend_error",
    "reason that is none": "backend_error",
    "no piece": "backend_error",
    "error": "invalid_params",
}
"""By the name of what `odd` yields: the code of the job's error, None where it is done."""


async def odd(work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
    """Yields what a careless handler may."""
    for piece in PIECES[params["which"]]:
        yield piece
    if params["which"] == "error":
        raise InvalidParams(HALF)
