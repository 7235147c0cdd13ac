"""Keeps an attempt that was overtaken from writing: a worker that comes back from a pause does not know that it was.

Each attempt writes a message to the job's fence, and each of its events names that message's sequence. The stream
refuses an event whose fence is not the last word any more (`Nats-Expected-Last-Subject-Sequence-Subject`, checked by
the server, so there is no moment between a look and the write).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from tidegate_common.bus.history import History
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, Superseded
from tidegate_common.runtime.tasks import end

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"

Mine = Callable[[], Awaitable[bool]]
"""Whether the job's record still says that this attempt has it. Raises BrokerUnavailable."""


class Fence:
    """One attempt's. `headers` go with each of its events."""

    def __init__(self, publisher: Publisher, history: History, subjects: Subjects, job_id: str, mine: Mine) -> None:
        self._publisher = publisher
        self._history = history
        self._subject = subjects.fence(job_id)
        self._tail = f"fence.{job_id}"
        self._mine = mine
        self._attempt = 0
        self._raising: asyncio.Task[int] | None = None

    async def headers(self) -> Mapping[str, str]:
        """Once it is raised; raises what that did. Called again, it tries again where NATS was away."""
        assert self._raising is not None, "a fence is raised before an event is written"
        if self._raising.done() and isinstance(self._raising.exception(), BrokerUnavailable):
            self.begin(self._attempt)
        return {EXPECTED: str(await asyncio.shield(self._raising)), EXPECTED_ON: self._subject}

    def begin(self, attempt: int) -> None:
        """Raises it, while the caller goes on."""
        self._attempt = attempt
        self._raising = asyncio.create_task(self._raise(attempt))

    async def raise_(self, attempt: int) -> None:
        """Earlier attempts can't write from now on. Raises Superseded (a later one has begun), BrokerUnavailable."""
        self.begin(attempt)
        await self.headers()

    async def renew(self, attempt: int) -> bool:
        """An event was refused: raises the fence again where that was for no other attempt, but for the stream's
        limits, which may drop a fence. Gives whether it did."""
        if not await self._mine():
            return False
        await self.raise_(attempt)
        return True

    async def aclose(self) -> None:
        """Ends what is under way."""
        if self._raising is not None:
            await end([self._raising])

    async def _raise(self, attempt: int) -> int:
        last = 0 if attempt == 1 else await self._history.last_on(self._tail)
        payload = msgspec.json.encode({"attempt": attempt})
        while True:
            try:
                return (await self._publisher.store(self._subject, payload, {EXPECTED: str(last)}, None)).seq
            except Superseded:
                # Somebody wrote since `last` was read. The record, changed before this, says who is the later one.
                if not await self._mine():
                    raise
                last = await self._history.last_on(self._tail)
