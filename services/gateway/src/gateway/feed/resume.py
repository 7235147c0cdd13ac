"""Where a connection starts in the stream: pure decisions about the id that a client brings back."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from tidegate_common.bus.events.history import Position, Stored
from tidegate_common.contract.ids import EventId


class Gap(NamedTuple):
    """What can't be replayed: `reason` is `expired` or `epoch`, `start` the id that the client had, `end` ours."""

    reason: str
    start: str
    end: str


class Plan(NamedTuple):
    """Events with sequences over `after` are due to the client; `resumed` if its own id was understood."""

    after: int
    resumed: bool
    gap: Gap | None


def plan(last_event_id: str | None, position: Position, since: str | None = None) -> Plan:
    """What a client is due that comes with `last_event_id` (None: its first time) at `position` of the stream.

    One that comes for the first time, or with an id that no life of a stream has given out, is due what there is after
    the id `since`, if that is given. An id of another life is due the whole of this one: nothing of it can be what
    the client has had. If the stream was restored, an id of before holds up to the restored place; one past it is
    due what came after that place.
    """
    if last_event_id is None:
        return Plan(position.last, False, None) if since is None else plan(since, position)
    event_id = EventId.parse(last_event_id)
    if event_id is None:
        return _after_gap(last_event_id, position, position.last if since is None else plan(since, position).after)
    if event_id.epoch == position.epoch and event_id.sequence > position.last and position.copies:
        # Perhaps the word of a server that is cut off from the others: whoever catches up makes sure.
        return Plan(event_id.sequence, True, None)
    place = position.place(event_id)
    if place is None and since is not None and position.life.shared(event_id.epoch) is None:
        return _after_gap(last_event_id, position, plan(since, position).after)
    if place is None:
        return _after_gap(last_event_id, position, shared(event_id.epoch, position))
    if place + 1 < position.first:
        kept = EventId(position.epoch, position.first - 1)
        return Plan(kept.sequence, True, Gap("expired", last_event_id, str(kept)))
    return Plan(place, True, None)


def shared(epoch: str, position: Position) -> int:
    """The place up to which a client of the life `epoch` may have had what the stream keeps.

    That is the place before all of it, unless the stream was restored with what that life had up to some place.
    """
    return max(position.first - 1, position.life.shared(epoch) or 0)


def _after_gap(last_event_id: str, position: Position, after: int) -> Plan:
    # A client names whatever it likes as its id.
    return Plan(after, False, Gap("epoch", last_event_id[:64], str(EventId(position.epoch, after))))


async def merge(sources: Sequence[AsyncIterator[Stored]]) -> AsyncIterator[Stored]:
    """The events of all `sources`, each in sequence order, in one sequence order, each event once."""
    heap: list[tuple[int, int, Stored]] = []
    for number, source in enumerate(sources):
        async for stored in source:
            heap.append((stored.sequence, number, stored))
            break
    heapq.heapify(heap)
    last = 0
    while heap:
        sequence, number, stored = heap[0]
        if sequence > last:
            last = sequence
            yield stored
        async for following in sources[number]:
            heapq.heapreplace(heap, (following.sequence, number, following))
            break
        else:
            heapq.heappop(heap)
