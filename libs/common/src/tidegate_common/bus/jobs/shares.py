"""How many jobs of an owner come before one that is being put into the queue.

The queue counts what it holds, and this what is on its way there. Whoever comes while the queue is being asked takes
the next number and shares the answer: none of those can be in it, since each is sent only when the answer has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.levels import stream_state
from tidegate_common.bus.requests.callers import CALLER
from tidegate_common.bus.streams.leaders import Leaders


class Entry:
    """A job that is being put into the queue."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked
        self._number = asked.entries
        asked.entries += 1
        self.sequence: int | None = None
        """Its place in the queue once that is known; 0 where it does not come there."""

    async def before(self) -> tuple[int, int]:
        """How many jobs of its owner come before it, those in work too, and all that the queue holds.

        Raises BrokerUnavailable.
        """
        held_of_owner, held = await asyncio.shield(self._asked.answer)
        return held_of_owner + self._number, held


class _Asked:
    """The queue is being asked; `entries` have come meanwhile."""

    def __init__(self, answer: asyncio.Task[tuple[int, int]]) -> None:
        self.answer = answer
        self.entries = 0


class Shares:
    """Counts the jobs that are put into the queue from here."""

    def __init__(self, bus: Bus, leaders: Leaders) -> None:
        self._bus = bus
        self._leaders = leaders
        self._asked: dict[str, _Asked] = {}
        self._entries: dict[str, set[Entry]] = {}
        """By owner, those that the queue has not confirmed."""

    @contextmanager
    def entry(self, owner: str) -> Iterator[Entry]:
        """For the time in which a job is put into the queue: who enters later comes after it."""
        asked = self._asked.get(owner)
        if asked is None or asked.answer.done():
            earlier = tuple(self._entries.get(owner, ()))
            counting = asyncio.create_task(self._count(owner, earlier))
            counting.add_done_callback(_retrieve)  # those who asked may all have left before they could hear of it
            asked = self._asked[owner] = _Asked(counting)
        entry = Entry(asked)
        entries = self._entries.setdefault(owner, set())
        entries.add(entry)
        try:
            yield entry
        finally:
            entry.sequence = entry.sequence or 0
            entries.discard(entry)
            if not entries and self._entries.pop(owner, None) is not None:
                del self._asked[owner]

    async def _count(self, owner: str, earlier: tuple[Entry, ...]) -> tuple[int, int]:
        CALLER.set(None)  # for all who share the answer: it goes on when the first of them has gone
        subjects = self._bus.subjects
        ask = partial(stream_state, self._bus, subjects.jobs(owner=owner))
        state = await self._leaders.outlast(subjects.jobs_stream, ask, repeatable=True)
        on_their_way = sum(each.sequence is None or each.sequence > state.last_seq for each in earlier)
        return on_their_way + sum(state.subjects.values()), state.messages


def _retrieve(task: asyncio.Task[tuple[int, int]]) -> None:
    """Its error is for those who wait."""
    if not task.cancelled():
        task.exception()
