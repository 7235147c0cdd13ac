"""For whom something is done, so that a wait on their account can end when they have gone."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Protocol


class Caller(Protocol):
    """Whoever sent the request that is being answered."""

    @property
    def size(self) -> int:
        """Bytes of the request's body, which are kept while it waits."""

    def gone(self) -> asyncio.Future[Any]:
        """Done once they have left. Asked for by whoever begins to wait, after the request has been read."""


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""None where nobody waits for an answer, and in what is done for several callers at once."""
