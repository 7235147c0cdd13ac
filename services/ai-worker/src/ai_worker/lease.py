"""Who has a job: the lease that an attempt holds on it.

A lease has three parts, and each keeps off what the others can't:

- **The attempt's number**, in the job's record. Compare-and-set gives it: of two workers that take the job in the same
  moment, one gets it.
- **The holder**, in the record too. It names the attempt in its process, which can be asked whether it still runs the
  job (holders.py). NATS gives a job out again if it has heard nothing of its worker for a while, and it counts the time
  of its own absence. Without the question, each outage of NATS would restart all answers.
- **The fence**, in the event stream. A worker that was paused does not know that it was overtaken. Between its look at
  the record and its write there is always a moment, so the server itself refuses the write.

The record decides, and the fence follows it: the stream's limits may drop a fence, readers see the record, and workers
of another release go by it too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from msgspec.structs import replace

from ai_worker.holders import Holders
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.records import JobRecords, record_of
from tidegate_common.contract.events import EXPECTED, EXPECTED_ON
from tidegate_common.contract.jobs import Job, JobState, JobStatus, Usage
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import BrokerUnavailable, NotFound, Superseded, Unreadable
from tidegate_common.runtime.tasks import end

Mine = Callable[[], Awaitable[bool]]
"""Whether the job's record still says that this attempt has it. Raises BrokerUnavailable."""


class HeldByAnother(Exception):
    """Another attempt has the job, and its worker says that it runs it."""


def begun(state: JobState, job: Job, holder: str, dead: str) -> JobState | None:
    """The record with a new attempt in it, that of `holder`.

    None, and it stays as it is: it has ended, it is that of another asking under the same id, or it has a holder that
    is not known to be `dead`. That holder may be this one: then the change was stored before, and its answer was lost.
    A dead holder counts as a failure; one that has handed the job back has left it queued, and does not.
    """
    running = state.status is JobStatus.RUNNING
    if state.status.final or state.created != job.created or (running and state.holder not in ("", dead)):
        return None
    attempt, failures = state.attempt + 1, state.failures + running
    return replace(state, status=JobStatus.RUNNING, attempt=attempt, holder=holder, failures=failures)


def handed_back(state: JobState, attempt: int, pieces: int, usage: Usage) -> JobState | None:
    """Queued again after `pieces` events, unless a later attempt has begun."""
    if state.status.final or state.attempt != attempt:
        return None
    return replace(state, status=JobStatus.QUEUED, pieces=pieces, usage=usage)


def holds(state: JobState | None, attempt: int, holder: str) -> bool:
    """Whether nobody has begun the job since, or has written its last event. Without a record nobody can have."""
    if state is None:
        return True
    # The end that an attempt has recorded may be completed by any worker: its last event is made of the record alone.
    held = state.status.final or state.holder in ("", holder)
    return state.attempt == attempt and held and not state.end


class Lease:
    """One attempt's. Calls that await raise BrokerUnavailable."""

    def __init__(
        self,
        job: Job,
        trace_id: str,
        records: JobRecords,
        holders: Holders,
        publisher: EventPublisher,
        history: History,
        fence_subject: str,
    ) -> None:
        self._job = job
        self._trace_id = trace_id
        self._records = records
        self._holders = holders
        self.holder = holders.new()
        self.attempt = 0
        """Its number, once the record has given it one."""
        self.fence = Fence(publisher, history, fence_subject, job.job_id, self.is_mine)

    async def acquire(self) -> JobState | None:
        """Takes the job; gives its record, as it is if the job has ended. Called again, it goes on.

        None: the job is not to be run. Its record was removed, since its asker was told that there is no such job, or
        the record is that of a repeat. Raises HeldByAnother; Unreadable for a record that can't be read: nobody knows
        whether the job has run already.
        """
        dead = ""
        while True:
            state = await self._begin(dead)
            if state is None or state.status.final or state.holder == self.holder:
                self.attempt = 0 if state is None else state.attempt
                return state
            if await self._holders.alive(state.holder):
                raise HeldByAnother
            dead = state.holder

    async def _begin(self, dead: str) -> JobState | None:
        job = self._job
        new = record_of(job, self._trace_id, time.time())
        known = (new, job.revision) if job.revision else None  # nobody has changed it yet, nearly always
        edit = partial(begun, job=job, holder=self.holder, dead=dead)
        while True:
            try:
                state = await self._records.change(job.job_id, edit, known)
                return state if state.status.final or state.created == job.created else None
            except Unreadable:
                raise
            except NotFound:
                # If a job is refused, its record is removed. Only one that was lost otherwise is made anew.
                if not await self._records.may_have_lost(job.created):
                    return None
                known = None
                await self._records.create(new)

    async def record(self) -> JobState | None:
        """None if there is no such record (any more)."""
        try:
            return await self._records.get(self._job.job_id)
        except NotFound:
            return None

    async def is_mine(self) -> bool:
        return holds(await self.record(), self.attempt, self.holder)

    async def give_back(self, pieces: int, usage: Usage) -> bool:
        """Leaves the job to another worker, after `pieces` events. Gives whether it was still this attempt's."""
        edit = partial(handed_back, attempt=self.attempt, pieces=pieces, usage=usage)
        try:
            return (await self._records.change(self._job.job_id, edit)).status is JobStatus.QUEUED
        except NotFound:
            return False


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
    """Keeps an attempt that was overtaken from writing.

    Each attempt writes a message to the job's fence, and each of its events names that message's sequence. The server
    refuses an event whose fence is not the last message there any more (`Nats-Expected-Last-Subject-Sequence-Subject`).

    No attempt can raise its fence over that of a later one. It reads the fence that stands, and only then asks the
    record whether the job is its own. What it raises is stored only while the fence that it read is still the last. A
    later attempt changes the record before it comes to its fence. So if the record still named this attempt, the fence
    that was read is not the later one's; and if that has been raised since, this one is refused, and looks again. A
    fence also tells whose it is: one of a later attempt ends the matter, whatever the record says. An attempt that was
    overtaken stops, and raises nothing.

    A first attempt asks nobody the first time, which would cost each answer a round trip: its fence may only be stored
    while there is none.
    """

    def __init__(self, publisher: EventPublisher, history: History, subject: str, job_id: str, mine: Mine) -> None:
        self._publisher = publisher
        self._history = history
        self._subject = subject
        self._tail = f"fence.{job_id}"
        self._mine = mine
        self._attempt = 0
        self._raising: asyncio.Task[int] | None = None

    async def headers(self) -> Mapping[str, str]:
        """Go with each event. Waits until the fence is raised; raises what that did.

        Called again after NATS was away, it tries again.
        """
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

    async def renew(self) -> bool:
        """An event was refused: raises the fence again if no other attempt was the reason, but the stream's limits,
        which may drop a fence. Gives whether it did."""
        self._begin(self._attempt, ask=True)
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
        sequence, payload = await self._history.last(self._tail)  # before the record is asked: see above
        if (sequence and _attempt_of(payload) > attempt) or not await self._mine():
            raise Superseded("another attempt has begun since")
        return sequence
