"""What is known of each job."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.refusals import Refusals, reason_of
from tidegate_common.bus.events.writer import unconfirmed
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.requests.jetstream import JetStreamError
from tidegate_common.bus.streams.definitions import SECOND
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.contract.ids import check_job_id
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.contract.soundness import of_another_release, read, state_fault
from tidegate_common.errors import BrokerUnavailable, NotFound, NotSent, OtherRelease, TooLarge, Unreadable

_STATE = msgspec.json.Decoder(JobState)


def record_of(job: Job, trace_id: str, now: float) -> JobState:
    """The record of a job that has just been queued."""
    return JobState(
        job_id=job.job_id,
        kind=job.kind,
        status=JobStatus.QUEUED,
        created=job.created,
        updated=now,
        trace_id=trace_id,
        tail=job.tail,
        owner=job.owner,
        start=job.start,
        request=job.request,
        budget=job.budget,
    )


def no_job(job_id: str) -> str:
    """What is said of a job that is not there. Whoever may not see a job is told the same of it."""
    return f"there is no job {job_id}, or it is not kept any more"


class JobRecords:
    """The KV bucket of job records, one key per job, changed by compare-and-set.

    A record that can't be read is Unreadable, which is a NotFound: nothing here writes over it.
    """

    def __init__(self, bus: Bus, leaders: Leaders | None = None, refusals: Refusals | None = None) -> None:
        """The bucket need not be there yet. `leaders` waits while it has none, `refusals` is told of what NATS does not
        store."""
        self._bus = bus
        self._leaders = leaders or Leaders(bus)
        self._refusals = refusals or Refusals()
        self._bucket = Bucket(bus, bus.subjects.jobs_bucket)
        self._stream = self._bucket.stream

    async def get(self, job_id: str) -> JobState:
        """Raises NotFound, BrokerUnavailable."""
        return (await self._leaders.outlast(self._stream, lambda: self._read(job_id), repeatable=True))[0]

    async def create(self, state: JobState) -> int:
        """Keeps a new record; gives its revision, 0 if the job has one already.

        Raises BrokerUnavailable, TooLarge.
        """
        return await self._leaders.outlast(self._stream, lambda: self._create(state))

    async def _create(self, state: JobState) -> int:
        return await self._kept(self._bucket.create(state.job_id, msgspec.json.encode(state)))

    async def _kept(self, putting: Awaitable[int]) -> int:
        """What the bucket gives. A record that it does not take counts as an event does."""
        try:
            revision = await putting
        except TooLarge as error:
            raise TooLarge("the job's record", int(self._bus.client.max_payload)) from error
        except NotSent:
            raise  # nothing was sent, so it may be tried again
        except JetStreamError as error:
            self._refusals.refused(self._stream, reason_of(error.code, error.words), error.words)
            raise BrokerUnavailable("NATS did not keep the job's record") from error
        except BrokerUnavailable as error:
            self._refusals.refused(self._stream, unconfirmed(self._bus, self._leaders, self._stream))
            raise BrokerUnavailable("NATS did not keep the job's record") from error
        if revision:
            self._refusals.stored(self._stream)
        return revision

    async def forget(self, job_id: str, revision: int) -> bool:
        """Removes the record of a job that is not to be; gives whether it is gone.

        It stays if it is not at `revision` any more: a worker has begun the job. Raises BrokerUnavailable.
        """
        return bool(await self._bucket.remove(job_id, revision))

    async def may_have_lost(self, created: float) -> bool:
        """Whether a record of that time may be gone though nobody has removed it. Raises BrokerUnavailable.

        The bucket was made anew since, or keeps none for so long.
        """
        info = await self._bus.api.call(f"STREAM.INFO.{self._stream}")
        made, kept = datetime.fromisoformat(info["created"]).timestamp(), info["config"].get("max_age", 0) / SECOND
        return made > created or time.time() - created > (kept or float("inf"))

    async def change(
        self,
        job_id: str,
        edit: Callable[[JobState], JobState | None],
        known: tuple[JobState, int] | None = None,
    ) -> JobState:
        """Replaces the record by what `edit` makes of it; None leaves it. Gives the record as it stands then.

        `edit` is called again if somebody else has changed the record meanwhile, so it decides by what it is given
        alone. The record may also be its own work, of a call whose answer was lost: it leaves that as it is.
        `known` is what the record was at a revision: if it still is at that, it need not be read.
        Raises NotFound, BrokerUnavailable.
        """
        while True:
            state, revision = known or await self._read(job_id)
            known = None
            edited = edit(state)
            if edited is None:
                return state
            edited = msgspec.structs.replace(edited, updated=time.time())
            update = partial(self._update, job_id, msgspec.json.encode(edited), revision)
            if await self._leaders.outlast(self._stream, update):
                return edited

    async def _update(self, job_id: str, record: bytes, revision: int) -> bool:
        """Whether the record was at `revision` still."""
        return bool(await self._kept(self._bucket.put(job_id, record, revision)))

    async def _read(self, job_id: str) -> tuple[JobState, int]:
        entry = await self._bucket.get(check_job_id(job_id))
        if entry is None or entry.value is None:
            raise NotFound(no_job(job_id))
        return self._decoded(job_id, entry.value), entry.revision

    def _decoded(self, job_id: str, value: bytes) -> JobState:
        try:
            return read(_STATE, value, lambda state: state_fault(state, job_id))
        except Unreadable as error:
            self._bus.foreign.note("record", job_id, str(error))
        text = f"the record of job {job_id} can't be read"
        other = of_another_release(value, job_id)
        raise Unreadable(text) if other is None else OtherRelease(text, other.updated)
