"""Which job is taken next. A job waits on one of a few levels, and workers take more from the lower levels.

A work queue serves first come, first served: one client's 1,000 jobs would stand before another client's one. Here a
job's level goes by how many jobs of its owner the queue holds before it, so a client's k-th job waits for others' jobs
up to about their 4k-th.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tidegate_common.bus.streams.patience import WAITER

STARTS = (2, 8, 32)
"""Jobs of one owner in the queue from which on another waits on the second, third and fourth level."""

LEVELS = range(len(STARTS) + 1)

UPPER_EVERY = 4
"""One job in so many is taken from above the lowest level: every level moves, however many jobs come on the others."""

UPPER_TURNS = (1, 2, 1, 3, 1, 2)
"""Where that one is looked for first, in turn. Were it always the highest level, the levels between would stand still.

With jobs on all levels, of 24 they have 18, 3, 2 and 1.
"""


def level_of(before: int) -> int:
    """The level of a job that has `before` jobs of its owner before it."""
    return bisect.bisect(STARTS, before)


def turn(number: int) -> list[int]:
    """The levels in the order in which the `number`th job is looked for on them; the first is number 0."""
    upper, rest = divmod(number, UPPER_EVERY)
    if rest < UPPER_EVERY - 1:
        return list(LEVELS)
    first = UPPER_TURNS[upper % len(UPPER_TURNS)]
    return [first, *(level for level in LEVELS if level not in (0, first)), 0]


class JobsInQueue(NamedTuple):
    """What the queue holds at a moment, jobs in work too: of one owner, of all, and its last job's sequence."""

    of_owner: int
    of_all: int
    last: int


Ask = Callable[[str], Awaitable[JobsInQueue]]
"""Asks what the queue holds of an owner. Raises BrokerUnavailable."""


class NewJob:
    """A job that is on its way into the queue."""

    def __init__(self, count: _Count) -> None:
        self._count = count
        self._number = count.entries
        count.entries += 1
        self.sequence: int | None = None
        """Its sequence in the queue once that is known; 0 if it does not come there."""
        self.sending: asyncio.Future[int] | None = None
        """Done, with its sequence, when the queue has confirmed it; None before it is sent."""

    async def before(self) -> JobsInQueue:
        """What the queue holds before it, with what is on its way there. Raises BrokerUnavailable."""
        # Shielded, since others wait for the same answer: the first of them may leave.
        found = await asyncio.shield(self._count.answer)
        return found._replace(of_owner=found.of_owner + self._number)


class _Count:
    """A question to the queue that is under way, and how many entries share its answer."""

    def __init__(self, answer: asyncio.Task[JobsInQueue]) -> None:
        self.answer = answer
        self.entries = 0


class OwnerCounts:
    """How many jobs of its owner come before each job that is put into the queue from here.

    Jobs of one owner that come at once must not count each other: the queue counts what it holds, and this counts what
    is on its way there, in the order of asking. An entry that comes while the queue is being asked takes the next
    number and shares the answer. None of those that share it can be in it, since each is sent only after the answer.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._counts: dict[str, _Count] = {}
        self._entries: dict[str, set[NewJob]] = {}
        """By owner, those that the queue has not confirmed."""

    @contextmanager
    def entry(self, owner: str) -> Iterator[NewJob]:
        """For the time in which a job is put into the queue: an entry that comes later counts it."""
        count = self._counts.get(owner)
        if count is None or count.answer.done():
            earlier = tuple(self._entries.get(owner, ()))
            answer = asyncio.create_task(self._counted(owner, earlier))
            answer.add_done_callback(_retrieve)
            count = self._counts[owner] = _Count(answer)
        entry = NewJob(count)
        entries = self._entries.setdefault(owner, set())
        entries.add(entry)
        try:
            yield entry
        finally:
            entry.sequence = entry.sequence or 0
            entries.discard(entry)
            if not entries and self._entries.pop(owner, None) is not None:
                del self._counts[owner]

    async def _counted(self, owner: str, earlier: tuple[NewJob, ...]) -> JobsInQueue:
        WAITER.set(None)  # for all that share the answer: it goes on when the first of them has gone
        found = await self._ask(owner)
        # NATS answers a question and confirms a message in no fixed order. One that is sent and not confirmed may be in
        # the answer, which only its sequence tells. One that is not sent yet is not in it.
        unsure = [each.sending for each in earlier if each.sending is not None and not each.sending.done()]
        if unsure:
            await asyncio.wait(unsure)
        # Read after that: an entry that was confirmed meanwhile is in it only up to the queue's last sequence.
        on_their_way = sum(_is_after(each, found.last) for each in earlier)
        return found._replace(of_owner=found.of_owner + on_their_way)


def _is_after(entry: NewJob, last: int) -> bool:
    """Whether the queue did not hold `entry` yet when its last sequence was `last`."""
    sending = entry.sending
    if sending is not None and sending.done() and not sending.cancelled() and sending.exception() is None:
        return sending.result() > last
    return entry.sequence is None or entry.sequence > last


def _retrieve(task: asyncio.Task[JobsInQueue]) -> None:
    """Its error is for those who wait, who may all have left: asyncio would report it as never retrieved."""
    if not task.cancelled():
        task.exception()
