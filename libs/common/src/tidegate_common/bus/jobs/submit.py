"""Submitting a job: the one way from what somebody asks for, at whichever surface, to a job in the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.trace import Tracer

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.enqueue import JOBS_QUEUED, QueueWriter
from tidegate_common.bus.jobs.rights import allowed, tokens_of
from tidegate_common.contract.budget import CONCURRENT, TOKENS_PER_DAY, Allowance, budget_of
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import CHAT, Job, JobState, OnDisconnect
from tidegate_common.contract.principal import JobRights, Principal
from tidegate_common.contract.subjects import job_tail
from tidegate_common.errors import BrokerUnavailable, Limited, TidegateError
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import trace_id
from tidegate_common.telemetry.spans import producing


class JobSubmitter:
    """Makes jobs and queues them, each within a span of its own."""

    def __init__(self, bus: Bus, history: History, queue: QueueWriter, budgets: Budgets, tracer: Tracer) -> None:
        self._subject = f"{bus.subjects.namespace}.jobs"
        self._history = history
        self._queue = queue
        self._budgets = budgets
        self.refused = dict.fromkeys((CONCURRENT, TOKENS_PER_DAY, JOBS_QUEUED), 0)
        """Jobs that were one too many, by the limit's name."""
        self._tracer = tracer

    async def draft(
        self,
        job_id: str,
        kind: str,
        params: dict[str, Any],
        *,
        principal: Principal,
        tail: str = "",
        owner: str = "",
        request: str = "",
        seconds: float | None = None,
        on_disconnect: OnDisconnect = OnDisconnect.CONTINUE,
        grace_seconds: float = 10.0,
    ) -> Job:
        """A job of `principal` that is not queued yet, to be done `seconds` from now.

        Without a `tail`, only the job's own stream has its events. The other fields are as `Job` has them. Whom it
        addresses, and who owns it, is for the caller to check. Raises Forbidden, Unauthenticated, InvalidField if the
        principal may not have such a job, and BrokerUnavailable.
        """
        params, rights = allowed(principal, kind, params)
        deadline = None if seconds is None else time.time() + seconds
        # Before the job is queued: from then on a worker may store its events.
        position = await self._history.patient_position()
        return Job(
            job_id=job_id,
            kind=kind,
            tail=tail or job_tail(job_id),
            params=params,
            created=time.time(),
            owner=owner,
            start=str(EventId(position.epoch, position.last)),
            deadline=deadline,
            on_disconnect=on_disconnect,
            grace_seconds=grace_seconds,
            request=request,
            max_tokens=rights.max_tokens,
            budget=budget_of(principal),
        )

    async def submit(
        self, job: Job, principal: Principal, told: Callable[[Allowance], object] = lambda _: None
    ) -> JobState:
        """Queues a job of `principal`, once for one id; gives its record, which an earlier call may have made.

        `told` hears what the principal's budget of tokens leaves, if there is one.

        Raises Limited, QueueFull, BrokerUnavailable, TooLarge: then there is no such job, unless it had a record
        before. Raises KeyReused if that record is of another request.
        """
        # A kind that only workers know is its asker's word: a span's name is not made of it.
        name = f"{self._subject}.{CHAT}" if job.kind == CHAT else self._subject
        with producing(self._tracer, f"{self._subject}.{job.kind}", name) as (span, headers):
            span.set_attributes({names.JOB_ID: job.job_id, names.JOB_KIND: job.kind})
            try:
                if principal.jobs is None or not principal.jobs.counted:
                    return await self._queue.put(job, headers, trace_id())
                return await self._put_counted(job, principal.jobs, headers, told)
            except Limited as error:
                self.refused[error.limit] += 1
                raise

    async def _put_counted(
        self, job: Job, rights: JobRights, headers: Mapping[str, str], told: Callable[[Allowance], object]
    ) -> JobState:
        """Reserves what the job may use, and queues it."""
        if job.request and await self._queue.has_record(job.job_id):
            # A repeat is answered though the budget is spent. It makes no record, so it needs no reservation.
            return await self._queue.put(job, headers, trace_id(), again=True)
        await self._budgets.reserve(job, tokens_of(job), rights, told)
        try:
            state = await self._queue.put(job, headers, trace_id())
        except BrokerUnavailable:
            raise  # nobody knows whether it was queued: if it was not, the budget finds out that it has no record
        except TidegateError:
            await self._budgets.release(job)
            raise
        if state.created != job.created:
            await self._budgets.release(job)  # of the same request, another call was first, and has reserved
        return state
