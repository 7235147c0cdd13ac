"""Jobs that failed through no fault of their own: listed, tried again, forgotten."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.submit import JobSubmitter
from tidegate_common.contract.ids import keyed_id
from tidegate_common.contract.jobs import DeadJob, JobState, OnDisconnect
from tidegate_common.contract.principal import OPEN
from tidegate_common.contract.subjects import job_tail
from tidegate_common.errors import Unreadable


class DeadLetters:
    """All calls raise BrokerUnavailable."""

    def __init__(self, dead: DeadJobs, submitter: JobSubmitter) -> None:
        self._dead = dead
        self._submitter = submitter

    async def latest(self, most: int) -> tuple[list[DeadJob], int]:
        """The `most` that failed last, the newest first, and how many there are."""
        return await self._dead.latest(most)

    async def get(self, job_id: str) -> DeadJob:
        """Raises NotFound."""
        return await self._dead.get(job_id)

    async def retry(self, job_id: str) -> JobState:
        """Queues it as a new job, whose record this gives, and forgets it. Raises NotFound, QueueFull, TooLarge."""
        dead = await self._dead.get(job_id)
        old = dead.job
        # The id of this one failure: a call that is repeated, since NATS went away in here, gives the same new job.
        new_id = keyed_id("again", job_id, str(dead.failed))
        job = await self._submitter.draft(
            new_id,
            old.kind,
            old.params,
            # It is whoever looks after the service that tries it again: no rights and no budget of its asker's count.
            principal=OPEN,
            tail="" if old.tail == job_tail(job_id) else old.tail,
            owner="" if old.owner == old.tail else old.owner,
            # Its asker has gone long since, and whoever tries it again need not listen.
            on_disconnect=OnDisconnect.CONTINUE,
        )
        state = await self._submitter.submit(replace(job, max_tokens=old.max_tokens), OPEN)
        await self._dead.remove(job_id)
        return state

    async def remove(self, job_id: str) -> None:
        """Raises NotFound. What is kept there and can't be read can be removed all the same."""
        with suppress(Unreadable):
            await self._dead.get(job_id)
        await self._dead.remove(job_id)
