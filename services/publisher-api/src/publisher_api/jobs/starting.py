"""Puts jobs into the queue."""

from __future__ import annotations

import hashlib
import time
from typing import Any, NamedTuple

import msgspec
from opentelemetry.trace import Tracer

from publisher_api.requests import ChatBody, JobBody, JobFields, chat_of, job_tail_of, kind_of
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.enqueue import Queueing
from tidegate_common.contract.ids import EventId, new_job_id
from tidegate_common.contract.jobs import DeadJob, Job, JobState, OnDisconnect, request_hash
from tidegate_common.contract.subjects import Subjects, job_tail
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import trace_id
from tidegate_common.telemetry.sending import producing

CHAT = "chat"


class _Wanted(NamedTuple):
    job_id: str
    kind: str
    tail: str
    params: dict[str, Any]
    request: str = ""


class Starting:
    """All calls raise QueueFull, BrokerUnavailable, TooLarge, KeyReused."""

    def __init__(self, queueing: Queueing, history: History, subjects: Subjects, tracer: Tracer) -> None:
        self._queueing = queueing
        self._history = history
        self._subjects = subjects
        self._tracer = tracer

    async def chat(self, body: ChatBody, key: str | None, asker: str) -> JobState:
        """Queues a chat, once for one `key`; gives its record. Raises InvalidField.

        `asker` is whose share of the workers a job without a target takes.
        """
        params = msgspec.to_builtins(chat_of(body))
        return await self._put(_wanted(CHAT, params, body, key), body, asker)

    async def job(self, body: JobBody, key: str | None, asker: str) -> JobState:
        """As `chat`, for a job of any kind."""
        return await self._put(_wanted(kind_of(body), body.params, body, key), body, asker)

    async def again(self, dead: DeadJob) -> JobState:
        """Queues a dead job as a new one, once however often it is asked for.

        It goes on to its end whoever listens: its asker has gone long since, and who asks now need not listen.
        """
        old = dead.job
        job_id = hashlib.sha256(f"again\0{old.job_id}\0{dead.failed}".encode()).hexdigest()[:32]
        tail = job_tail(job_id) if old.tail == job_tail(old.job_id) else old.tail
        owner = tail if old.owner == old.tail else old.owner
        wanted = _Wanted(job_id, old.kind, tail, old.params)
        return await self._queue(wanted, {"owner": owner, "on_disconnect": OnDisconnect.CONTINUE})

    async def _put(self, wanted: _Wanted, fields: JobFields, asker: str) -> JobState:
        deadline = None if fields.deadline_seconds is None else time.time() + fields.deadline_seconds
        more = {
            # Its own tail would make an owner of each job, whose first it is.
            "owner": asker if wanted.tail == job_tail(wanted.job_id) else "",
            "deadline": deadline,
            "on_disconnect": fields.on_disconnect,
            "grace_seconds": fields.grace_seconds,
        }
        return await self._queue(wanted, more)

    async def _queue(self, wanted: _Wanted, more: dict[str, Any]) -> JobState:
        position = await self._history.patient_position()
        start = str(EventId(position.epoch, position.last))
        job = Job(**wanted._asdict(), created=time.time(), start=start, **more)
        subject = f"{self._subjects.namespace}.jobs"
        # A kind that only workers know is its asker's word: it makes no name of a span.
        name = f"{subject}.{CHAT}" if job.kind == CHAT else subject
        with producing(self._tracer, f"{subject}.{job.kind}", name) as (span, headers):
            span.set_attributes({names.JOB_ID: job.job_id, names.JOB_KIND: job.kind})
            return await self._queueing.put(job, headers, trace_id())


def _wanted(kind: str, params: dict[str, Any], fields: JobFields, key: str | None) -> _Wanted:
    """With an id that is new, or that of the key: then what is asked for under it must be the same each time."""
    if key is None:
        job_id = new_job_id()
        return _Wanted(job_id, kind, job_tail_of(fields, job_id), params)
    job_id = hashlib.sha256(f"job\0{key}".encode()).hexdigest()[:32]
    tail = job_tail_of(fields, job_id)
    asked = request_hash(kind, tail, params, fields.deadline_seconds, fields.on_disconnect, fields.grace_seconds)
    return _Wanted(job_id, kind, tail, params, asked)
