"""Jobs that failed through no fault of their own, kept so that they can be listed and tried again."""

from __future__ import annotations

import logging

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.requests.pages import Pages
from tidegate_common.contract.ids import check_job_id
from tidegate_common.contract.jobs import DeadJob
from tidegate_common.contract.soundness import dead_fault, read
from tidegate_common.errors import NotFound, TooLarge, Unreadable

log = logging.getLogger(__name__)

WINDOW = 64
"""Places of the bucket that are looked at together, from the last one on."""

_DEAD = msgspec.json.Decoder(DeadJob)


class DeadJobs:
    """The KV bucket of dead jobs, by job id, in the order of their failing. All calls raise BrokerUnavailable."""

    def __init__(self, bus: Bus) -> None:
        """The bucket need not be there yet."""
        self._bus = bus
        self._bucket = Bucket(bus, bus.subjects.dead_bucket)
        self._pages = Pages(bus, self._bucket.stream, self._bucket.prefix)

    async def keep(self, dead: DeadJob) -> None:
        try:
            await self._bucket.put(dead.job.job_id, msgspec.json.encode(dead))
        except TooLarge:  # it came into the queue without what is known of its end
            log.warning("job %s is too large to be kept among the dead", dead.job.job_id)

    async def get(self, job_id: str) -> DeadJob:
        """Raises NotFound; Unreadable, which is one, for what is kept there and is no dead job of ours."""
        entry = await self._bucket.get(check_job_id(job_id))
        if entry is None or entry.value is None:
            raise NotFound(f"no dead job {job_id} is kept")
        found = self._decoded(job_id, entry.value)
        if found is None:
            raise Unreadable(f"what is kept of dead job {job_id} can't be read")
        return found

    async def remove(self, job_id: str) -> None:
        """Does nothing if there is none."""
        # The message itself: the bucket's own removal would leave another one, which counts as a job that is kept.
        await self._bus.api.call(f"STREAM.PURGE.{self._bucket.stream}", {"filter": f"{self._bucket.prefix}{job_id}"})

    async def latest(self, most: int) -> tuple[list[DeadJob], int]:
        """The `most` that failed last, the newest first, and how many are kept in all.

        What can't be read is left out, and of the number too as far as it was come across.
        """
        state = (await self._bus.api.call(f"STREAM.INFO.{self._bucket.stream}"))["state"]
        found: list[DeadJob] = []
        unreadable, upto = 0, state["last_seq"]
        while len(found) < most and state["messages"] and upto >= state["first_seq"]:
            window = await self._between(max(1, upto - WINDOW + 1), upto)
            unreadable += window.count(None)
            found += (dead for dead in reversed(window) if dead is not None)
            upto -= WINDOW
        return found[:most], max(0, state["messages"] - unreadable)

    async def _between(self, first: int, last: int) -> list[DeadJob | None]:
        """Those with sequences from `first` to `last`, in order; None for what can't be read."""
        found: list[DeadJob | None] = []
        while first <= last:
            page = await self._pages.page({"seq": first, "next_by_subj": f"{self._bucket.prefix}>", "batch": WINDOW})
            there = [each for each in page.events if each.sequence <= last]
            # An empty one is the trace of a removal.
            found += [self._decoded(each.tail, each.payload) for each in there if each.payload]
            if not page.left or len(there) < len(page.events):
                break
            first = there[-1].sequence + 1
        return found

    def _decoded(self, job_id: str, value: bytes) -> DeadJob | None:
        try:
            return read(_DEAD, value, lambda dead: dead_fault(dead, job_id))
        except Unreadable as error:
            self._bus.foreign.note("dead", job_id, str(error))
            return None
