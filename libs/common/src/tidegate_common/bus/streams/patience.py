"""How long a request waits for NATS, and for whom: a wait ends with the caller on whose account it is."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tidegate_common.errors import CallerGone

if TYPE_CHECKING:
    from tidegate_common.bus.streams.leaders import Leaders


class Waiter(Protocol):
    """Whoever sent the request that is being answered."""

    @property
    def size(self) -> int:
        """Bytes of the request's body, which are kept while it waits."""

    def gone(self) -> asyncio.Future[Any]:
        """Done once they have left. Asked for by whoever begins to wait, after the request has been read."""


WAITER: ContextVar[Waiter | None] = ContextVar("caller", default=None)
"""None if nobody waits for an answer, and in what is done for several callers at once."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how many, wait for NATS in one process."""

    deadline_seconds: float = 3.0
    """While NATS is away, or does not answer."""
    attempt_seconds: float = 2.0
    """NATS has so long to confirm what was sent, before it is sent again."""
    election_seconds: float = 0.0
    """From the moment when a stream was seen to have no leader: so long an election may take. 0: none is waited out."""
    most: int = 2_000
    most_bytes: int = 64 << 20
    copies: bool = False
    """Whether other servers keep the streams too: then a leader that is silent may have gone."""


class Wait:
    """One request's. It may end later than it was to at first, when the stream is seen to have no leader."""

    def __init__(self, leaders: Leaders, stream: str, began: float) -> None:
        self._leaders = leaders
        self._stream = stream
        self._began = began
        deadline = leaders.patience.deadline_seconds
        self._until = began + deadline
        self._last = began + max(deadline, leaders.patience.election_seconds) + deadline

    def left(self) -> float:
        """Seconds until it is over."""
        self._until = max(self._until, self._leaders.until(self._stream, self._began))
        return self._until - asyncio.get_running_loop().time()

    async def pause(self) -> None:
        """Returns when there is something to try again, or it is over. Raises CallerGone."""
        now, missing = asyncio.get_running_loop().time(), self._leaders.since(self._stream) is not None
        await self._leaders.pause(self._stream, now + self.left())
        if missing and self._leaders.since(self._stream) is None:
            # A new leader has as long to answer as any.
            fresh = asyncio.get_running_loop().time() + self._leaders.patience.deadline_seconds
            self._until = max(self._until, min(fresh, self._last))


async def wait_for(what: asyncio.Future[None] | None, seconds: float) -> None:
    """Returns when `what` is done, or `seconds` are over. Raises CallerGone as soon as the caller has left."""
    caller = WAITER.get()
    gone = None if caller is None else caller.gone()
    futures: set[asyncio.Future[Any]] = {future for future in (what, gone) if future is not None}
    if futures:
        await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(seconds)
    if gone is not None and gone.done():
        raise CallerGone("whoever asked has gone")
