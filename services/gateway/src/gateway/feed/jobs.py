"""The replay of a job's own stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from tidegate_common.bus import headers
from tidegate_common.bus.answers import belongs
from tidegate_common.bus.history import Stored


async def only(source: AsyncIterator[Stored], job_id: str, over: Callable[[int], None]) -> AsyncIterator[Stored]:
    """The job's events among those of `source`; `over` is called with the sequence of its last one, after it."""
    wanted = job_id.encode()
    async for stored in source:
        if belongs(stored.header, wanted):
            yield stored
            if headers.field(stored.header, headers.JOB_END) is not None:
                over(stored.sequence)
