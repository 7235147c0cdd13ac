"""What the stream keeps for a session, as its replay and its mending read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial

from gateway.feed.subscriptions import Subscriptions
from gateway.feed.windows import Windows
from gateway.hub.hub import Hub
from gateway.hub.tails import split
from tidegate_common.bus.events.history import History, Stored
from tidegate_common.bus.jobs.events import belongs
from tidegate_common.bus.wire import headers


class Missed:
    """Reads a tail once for all who come back to it together; for a job's own stream, of the tail that job's events."""

    def __init__(self, hub: Hub, history: History, subscriptions: Subscriptions) -> None:
        self._hub = hub
        self.history = history
        self._shared = Windows(history)
        self._subscriptions = subscriptions

    def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """Events for `tail` with sequences over `sequence` up to `upto`, in order. Raises BrokerUnavailable."""
        audience = self._hub.audience(tail)
        real, job_id = split(tail)
        if audience is not None and len(audience.live) + len(audience.joining) > 1:
            found = self._shared.after(self._subscriptions.epoch, real, sequence, upto)
        else:
            found = self.history.after(real, sequence, upto)
        return only(found, job_id, partial(self._subscriptions.over, tail)) if job_id else found


async def only(source: AsyncIterator[Stored], job_id: str, over: Callable[[int], None]) -> AsyncIterator[Stored]:
    """The job's events among those of `source`; `over` is called with the sequence of its last one, after it."""
    wanted = job_id.encode()
    async for stored in source:
        if belongs(stored.header, wanted):
            yield stored
            if headers.field(stored.header, headers.JOB_END) is not None:
                over(stored.sequence)
