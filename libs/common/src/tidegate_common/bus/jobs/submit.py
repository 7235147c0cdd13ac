"""Submitting a job: the one way from what somebody asks for, at whichever surface, to a job in the queue."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.trace import Tracer

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.rights import allowed
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import CHAT, Job, JobState, OnDisconnect
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.subjects import job_tail
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import trace_id
from tidegate_common.telemetry.spans import producing


class JobSubmitter:
    """Makes jobs and queues them, each within a span of its own."""

    def __init__(self, bus: Bus, history: History, queue: QueueWriter, tracer: Tracer) -> None:
        self._subject = f"{bus.subjects.namespace}.jobs"
        self._history = history
        self._queue = queue
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
        found = allowed(principal, kind, params)
        deadline = None if seconds is None else time.time() + seconds
        # Before the job is queued: from then on a worker may store its events.
        position = await self._history.patient_position()
        return Job(
            job_id=job_id,
            kind=kind,
            tail=tail or job_tail(job_id),
            params=found.params,
            created=time.time(),
            owner=owner,
            start=str(EventId(position.epoch, position.last)),
            deadline=deadline,
            on_disconnect=on_disconnect,
            grace_seconds=grace_seconds,
            request=request,
            max_tokens=found.max_tokens,
        )

    async def submit(self, job: Job, principal: Principal) -> JobState:
        """Queues a job of `principal`, once for one id; gives its record, which an earlier call may have made.

        Raises Limited, QueueFull, BrokerUnavailable, TooLarge: then there is no such job, unless it had a record
        before. Raises KeyReused if that record is of another request.
        """
        # A kind that only workers know is its asker's word: a span's name is not made of it.
        name = f"{self._subject}.{CHAT}" if job.kind == CHAT else self._subject
        with producing(self._tracer, f"{self._subject}.{job.kind}", name) as (span, headers):
            span.set_attributes({names.JOB_ID: job.job_id, names.JOB_KIND: job.kind})
            return await self._queue.put(job, headers, trace_id())
