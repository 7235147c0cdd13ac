"""What is known of each job, and the word that one is to be cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import msgspec
from nats import errors as nats_errors
from nats.js.errors import (
    APIError,
    BadRequestError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    ServiceUnavailableError,
)
from nats.js.kv import KeyValue

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.refusals import Refusals, reason_of
from tidegate_common.bus.events.writer import unconfirmed
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.contract.ids import check_job_id
from tidegate_common.contract.jobs import JobState
from tidegate_common.contract.soundness import of_another_release, read, state_fault
from tidegate_common.errors import BrokerUnavailable, NotFound, NotSent, OtherRelease, TooLarge, Unreadable

WRONG_REVISION = 10071
"""JetStream's error code for a key that has changed since: the client names it for an update, not for a removal."""

NOBODY = (nats_errors.NoRespondersError, NoStreamResponseError, ServiceUnavailableError)
"""What the client raises where nobody is there for a stream: nothing was sent to it."""

_STATE = msgspec.json.Decoder(JobState)


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
        name = bus.subjects.jobs_bucket
        self._stream = f"KV_{name}"
        # Not by the client's `key_value`, which asks for the bucket: that fails in an election. Not `direct`: a copy
        # may be behind its leader, and compare-and-set needs what was written last.
        self._bucket = KeyValue(name=name, stream=self._stream, pre=f"$KV.{name}.", js=bus.jetstream, direct=False)

    async def get(self, job_id: str) -> JobState:
        """Raises NotFound, BrokerUnavailable."""
        return (await self._leaders.outlast(self._stream, lambda: self._read(job_id), repeatable=True))[0]

    async def create(self, state: JobState) -> int:
        """Keeps a new record; gives its revision, 0 where the job has one already.

        Raises BrokerUnavailable, TooLarge.
        """
        return await self._leaders.outlast(self._stream, lambda: self._create(state))

    async def _create(self, state: JobState) -> int:
        self._check()
        try:
            revision: int = await self._bucket.create(state.job_id, msgspec.json.encode(state))
        except KeyWrongLastSequenceError:
            return 0
        except nats_errors.MaxPayloadError as error:
            raise TooLarge("the job's record", int(self._bus.client.max_payload)) from error
        except (nats_errors.Error, TimeoutError) as error:
            raise self._not_kept(error) from error
        self._refusals.stored(self._stream)
        return revision

    def _not_kept(self, error: Exception) -> BrokerUnavailable:
        """What is raised for a record that was not stored, or may not have been. It counts as events do."""
        if isinstance(error, NOBODY):
            return NotSent("the jobs' records have no leader")
        if isinstance(error, APIError) and error.err_code:
            words = error.description or ""
            self._refusals.refused(self._stream, reason_of(error.err_code, words), words)
        else:
            self._refusals.refused(self._stream, unconfirmed(self._bus, self._leaders, self._stream))
        return BrokerUnavailable("NATS did not keep the job's record")

    async def forget(self, job_id: str, revision: int) -> bool:
        """Removes a record of a job that is not to be; gives whether it is gone.

        It stays where it is not at `revision` any more: the job has come to a worker. Raises BrokerUnavailable.
        """
        self._check()
        try:
            return await self._bucket.delete(job_id, last=revision)
        except BadRequestError as error:
            if error.err_code == WRONG_REVISION:
                return False
            raise BrokerUnavailable("NATS did not remove the job's record") from error
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not remove the job's record") from error

    async def may_have_lost(self, created: float) -> bool:
        """Whether a record of that time may be gone though nobody has removed it. Raises BrokerUnavailable.

        The bucket was made anew since, or keeps none for so long.
        """
        self._check()
        try:
            info = await self._bus.jetstream.stream_info(f"KV_{self._bus.subjects.jobs_bucket}")
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not tell of the jobs' records") from error
        made = info.created.timestamp() if info.created else 0.0
        kept = info.config.max_age or float("inf")
        return made > created or time.time() - created > kept

    async def change(
        self,
        job_id: str,
        edit: Callable[[JobState], JobState | None],
        known: tuple[JobState, int] | None = None,
    ) -> JobState:
        """Replaces the record by what `edit` makes of it (None: leave it), again where another was faster.

        `known` is what it was at a revision: where it still is at that, it need not be read. Gives the record as it
        stands then. Raises NotFound, BrokerUnavailable.
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
        self._check()
        try:
            await self._bucket.update(job_id, record, last=revision)
        except KeyWrongLastSequenceError:
            return False
        except (nats_errors.Error, TimeoutError) as error:
            raise self._not_kept(error) from error
        self._refusals.stored(self._stream)
        return True

    def _check(self) -> None:
        if not self._bus.connected:
            raise NotSent("NATS is away")  # at once: the client would keep the request until it is back

    async def _read(self, job_id: str) -> tuple[JobState, int]:
        check_job_id(job_id)
        self._check()
        try:
            entry = await self._bucket.get(job_id)
        except KeyNotFoundError:
            raise NotFound(f"there is no job {job_id}, or it is not kept any more") from None
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not give the job's record") from error
        return self._decoded(job_id, entry.value or b""), int(entry.revision or 0)

    def _decoded(self, job_id: str, value: bytes) -> JobState:
        try:
            return read(_STATE, value, lambda state: state_fault(state, job_id))
        except Unreadable as error:
            self._bus.foreign.note("record", job_id, str(error))
        text = f"the record of job {job_id} can't be read"
        other = of_another_release(value, job_id)
        raise Unreadable(text) if other is None else OtherRelease(text, other.updated)


async def announce_cancel(bus: Bus, job_id: str) -> None:
    """Tells the worker that may have the job in hand. Raises BrokerUnavailable."""
    if not bus.connected:
        raise BrokerUnavailable("NATS is away")
    await bus.client.publish(bus.subjects.cancel(job_id), b"")


Cancelled = Callable[[str], None]


def on_cancel(bus: Bus, called: Cancelled) -> Callable[[], None]:
    """Calls `called` with a job's id each time its cancelling is announced, until the function returned is called."""
    prefix = len(bus.subjects.cancel(""))

    def receive(subject: bytes, _: bytes, __: bytes) -> None:
        called(subject.decode(errors="replace")[prefix:])

    sid = bus.client.subscribe_direct(bus.subjects.cancel("*"), receive)
    return lambda: bus.client.unsubscribe_direct(sid)
