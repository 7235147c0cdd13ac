"""Handlers of a worker under test, as a user would write them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ai_worker.api import Artifact, BackendFailed, Finish, Piece, Progress, Text, Work

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
