"""Budgets: how many jobs of one principal may be open at once, and how many tokens they may use in a day (UTC).

A budget is one document in a bucket, changed by compare-and-set; contract/budget.py says what it holds. A job's tokens
are reserved before it is queued, and what it has really used takes their place as a part of its end (finish.py),
whoever ends it. So the sum never passes the limit, however many ask at once and wherever. What a job uses beyond its
reservation (the guess of its prompt was too low) counts from its end on.

Changes that come while one is being stored are stored together: a thousand requests at once are a few writes.

A reservation may outlive its job: a process dies between the reservation and the record, or a worker of a release that
knows no budgets ends the job. So before somebody is refused, the records of jobs that count as open are looked at.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.requests.jetstream import STREAM_NOT_FOUND, JetStreamError
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.patience import WAITER
from tidegate_common.contract.budget import Allowance, Budget, Tokens, Used
from tidegate_common.contract.jobs import Job, JobState
from tidegate_common.contract.principal import JobRights
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import BrokerUnavailable, Limited, NotFound, TidegateError, Unreadable

log = logging.getLogger(__name__)

CHANGE_SECONDS = 5.0
"""How long others may get in first with their changes of the same budget."""

YOUNG_SECONDS = 60.0
"""A reservation that is no older may be of a job whose record is not there yet: the record waits out an election."""

LOOK_SECONDS = 5.0
"""Between two looks at the records of one budget's open jobs."""

LOOKED_AT = 64
"""Records, at one look."""


_BUDGET = msgspec.json.Decoder(Budget)


class _Change(NamedTuple):
    edit: Callable[[Budget], None]
    done: asyncio.Future[None]
    """With the error that the edit has raised, if it has."""


class Budgets:
    """The bucket of budgets. All calls raise BrokerUnavailable: then nothing is known to have changed."""

    def __init__(self, bus: Bus, records: JobRecords, leaders: Leaders, clock: Callable[[], float] = time.time) -> None:
        self._bucket = Bucket(bus, bus.subjects.budgets_bucket)
        self._records = records
        self._leaders = leaders
        self._clock = clock
        self._foreign = bus.foreign
        self._changes: dict[str, list[_Change]] = {}
        """By budget, what is to be stored; a task is at work on each that is here."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked: dict[str, float] = {}

    async def reserve(
        self, job: Job, tokens: Tokens, rights: JobRights, told: Callable[[Allowance], object] = lambda _: None
    ) -> None:
        """Notes `job` as open, with so many tokens that it may use. `told` hears what its budget leaves then.

        Raises Limited if there are too many jobs, BudgetSpent if there are not enough tokens today.
        """

        def edit(budget: Budget) -> None:
            now = self._clock()
            try:
                budget.reserve(_entry(job), tokens, rights, now)
            finally:
                if rights.tokens_per_day is not None:
                    told(budget.allowance(rights.tokens_per_day, now))

        try:
            await self._change(job.budget, edit)
        except Limited:
            if not await self._look(job.budget):
                raise
            await self._change(job.budget, edit)

    async def release(self, job: Job) -> None:
        """What was reserved for a job that is not to be."""
        await self._change(job.budget, lambda budget: budget.settle(_entry(job), Used()))

    async def settle(self, state: JobState) -> None:
        """What a job has used that has ended as `state` says. Does nothing if that is noted already."""
        if not state.budget:
            return
        try:
            await self._change(state.budget, lambda budget: budget.settle(_entry(state), Used.by(state)))
        except JetStreamError as error:
            if error.code != STREAM_NOT_FOUND:
                raise
            log.warning("there are no budgets any more, so the end of job %s is noted in none", state.job_id)

    async def _change(self, name: str, edit: Callable[[Budget], None]) -> None:
        """Raises what `edit` does."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = name in self._changes
        self._changes.setdefault(name, []).append(_Change(edit, done))
        if not begun:
            task = asyncio.create_task(self._store_all(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await done

    async def _store_all(self, name: str) -> None:
        """Until nothing is left to be stored."""
        WAITER.set(None)  # for all who wait: it goes on when the first of them has gone
        changes = self._changes[name]
        errors: Sequence[Exception | None]
        while changes:
            try:
                async with asyncio.timeout(CHANGE_SECONDS + self._leaders.patience.election_seconds):
                    errors = await self._leaders.outlast(self._bucket.stream, lambda: self._store(name, changes))
            except TimeoutError:
                errors = [BrokerUnavailable("too many change this budget at once")] * len(changes)
            except Exception as error:
                errors = [error] * len(changes)
            _tell(changes[: len(errors)], errors)
            del changes[: len(errors)]
        del self._changes[name]

    async def _store(self, name: str, changes: list[_Change]) -> list[TidegateError | None]:
        """Stores all `changes` that there are by now; gives the error of each, in their order."""
        tries = 0
        while True:
            budget, revision = await self._read(name)
            before = msgspec.json.encode(budget)
            errors = [_made(change, budget) for change in changes]
            value = msgspec.json.encode(budget)
            if value == before or await self._bucket.put(name, value, revision):
                return errors
            tries += 1  # others are changing it: whoever waits longest is not always the same
            await asyncio.sleep(random.uniform(0, 0.002 * tries))

    async def _look(self, name: str) -> bool:
        """Drops reservations of jobs that have ended, or are not there; gives whether it has looked."""
        now = self._clock()
        if now - self._looked.get(name, 0) < LOOK_SECONDS:
            return False
        self._looked = {each: when for each, when in self._looked.items() if now - when < LOOK_SECONDS}
        self._looked[name] = now
        found, _ = await self._read(name)
        for each in random.sample(list(found.open), min(len(found.open), LOOKED_AT)):
            used = await self._used(each, young=now - found.open[each].since <= YOUNG_SECONDS)
            if used is not None:
                await self._change(name, partial(Budget.settle, entry=each, used=used))
        return True

    async def _read(self, name: str) -> tuple[Budget, int]:
        """The budget as it stands today, and its revision."""
        entry = await self._bucket.get(name)
        budget = Budget()
        if entry is not None and entry.value:
            try:
                budget = _BUDGET.decode(entry.value)
            except UNREADABLE as error:  # nobody of ours writes such a thing: it begins anew
                self._foreign.note("budget", name, str(error))
        budget.turn(self._clock())
        return budget, entry.revision if entry is not None else 0

    async def _used(self, entry: str, *, young: bool) -> Used | None:
        """What the job of `entry` has used; None if it may still be open, or to come."""
        never = None if young else Used()
        try:
            state = await self._records.get(entry.partition(":")[0])
        except Unreadable:
            return None
        except NotFound:
            return never
        if _entry(state) != entry:  # another job has the id now: this one was refused
            return never
        return Used.by(state) if state.end else None


def _entry(job: Job | JobState) -> str:
    """A job's key in a budget. The time tells it from another under the same id that was refused."""
    return f"{job.job_id}:{job.created}"


def _made(change: _Change, budget: Budget) -> TidegateError | None:
    if change.done.cancelled():  # whoever asked has gone
        return None
    try:
        change.edit(budget)
    except TidegateError as error:
        return error
    return None


def _tell(changes: Sequence[_Change], errors: Sequence[Exception | None]) -> None:
    for (_, done), error in zip(changes, errors, strict=True):
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
