"""Keeps an attempt that was overtaken from writing: a worker that comes back from a pause does not know that it was.

Each attempt writes a message to the job's fence, and each of its events names that message's sequence. The stream
refuses an event whose fence is not the last word any more (`Nats-Expected-Last-Subject-Sequence-Subject`, checked by
the server, so there is no moment between a look and the write).

Why no attempt can raise its fence over that of a later one: it reads the fence that stands, and only then asks the
record whether the job is its own; what it raises is stored only while the fence that it read is still the last. A later
attempt changes the record before it comes to its fence. So where the record still named this one, the later one's fence
is not what was read; and if it has been raised since, this one is refused and looks again. A fence also tells whose it
is: one of a later attempt ends the matter, whatever the record says. Whoever was overtaken stops, and raises nothing.
A first attempt asks nobody the first time, so as to cost an answer no time: it may only be stored where no fence is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.subjects import Subjects
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import BrokerUnavailable, Superseded
from tidegate_common.runtime.tasks import end

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"

Mine = Callable[[], Awaitable[bool]]
"""Whether the job's record still says that this attempt has it. Raises BrokerUnavailable."""


class _Raised(msgspec.Struct):
    """What a fence says."""

    attempt: int


_RAISED = msgspec.json.Decoder(_Raised)


def _attempt_of(payload: bytes) -> int:
    """Whose fence it is; 0, so that it keeps nobody out, for what somebody else has written there."""
    try:
        return _RAISED.decode(payload).attempt
    except UNREADABLE:
        return 0


class Fence:
    """One attempt's. `headers` go with each of its events."""

    def __init__(
        self, publisher: EventPublisher, history: History, subjects: Subjects, job_id: str, mine: Mine
    ) -> None:
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
            self._begin(self._attempt, ask=True)
        return {EXPECTED: str(await asyncio.shield(self._raising)), EXPECTED_ON: self._subject}

    def begin(self, attempt: int) -> None:
        """Raises it, while the caller goes on."""
        self._begin(attempt, ask=attempt > 1)

    async def raise_(self, attempt: int) -> None:
        """Earlier attempts can't write from now on. Raises Superseded (a later one has begun), BrokerUnavailable."""
        self.begin(attempt)
        await self.headers()

    async def renew(self, attempt: int) -> bool:
        """An event was refused: raises the fence again where that was for no other attempt, but for the stream's
        limits, which may drop a fence. Gives whether it did."""
        self._begin(attempt, ask=True)
        try:
            await self.headers()
        except Superseded:
            return False
        return True

    async def aclose(self) -> None:
        """Ends what is under way."""
        if self._raising is not None:
            await end([self._raising])

    def _begin(self, attempt: int, ask: bool) -> None:
        self._attempt = attempt
        self._raising = asyncio.create_task(self._raise(attempt, ask))

    async def _raise(self, attempt: int, ask: bool) -> int:
        payload = msgspec.json.encode(_Raised(attempt))
        last = await self._below(attempt) if ask else 0
        while True:
            try:
                return (await self._publisher.store(self._subject, payload, {EXPECTED: str(last)}, None)).seq
            except Superseded:  # somebody raised theirs since `last` was read
                last = await self._below(attempt)

    async def _below(self, attempt: int) -> int:
        """Sequence of the fence that stands, 0 for none: an earlier attempt's. Raises Superseded, BrokerUnavailable."""
        sequence, payload = await self._history.last(self._tail)
        if (sequence and _attempt_of(payload) > attempt) or not await self._mine():
            raise Superseded("another attempt has begun since")
        return sequence
