"""Chats, as a use case that knows no HTTP: a job is queued, looked at, cancelled."""

from __future__ import annotations

import hashlib
import re
import time

import msgspec
from opentelemetry.trace import Tracer

from publisher_api.publishing import producing
from publisher_api.requests import ChatBody, chat_of, tail_of
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.history import History
from tidegate_common.bus.jobs import JobStates, announce_cancel
from tidegate_common.bus.publishing import Publisher
from tidegate_common.bus.queue import Queueing
from tidegate_common.contract.ids import EventId, new_job_id
from tidegate_common.contract.jobs import Job, JobState
from tidegate_common.errors import NotFound
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import trace_id

KIND = "chat"
_JOB_ID = re.compile(r"[0-9a-f]{32}")


class Chats:
    """Jobs of the kind `chat`."""

    def __init__(self, bus: Bus, history: History, publisher: Publisher, states: JobStates, tracer: Tracer) -> None:
        self._bus = bus
        self._history = history
        self._queueing = Queueing(bus, publisher, states)
        self._states = states
        self._tracer = tracer

    async def start(self, body: ChatBody, key: str | None) -> JobState:
        """Queues a chat, once for one `key`; gives its record.

        Raises InvalidField, QueueFull, BrokerUnavailable, TooLarge.
        """
        params, tail = chat_of(body), tail_of(body)
        job_id = new_job_id() if key is None else hashlib.sha256(f"{KIND}\0{tail}\0{key}".encode()).hexdigest()[:32]
        position = await self._history.position()
        job = Job(
            job_id=job_id,
            kind=KIND,
            tail=tail,
            params=msgspec.to_builtins(params),
            created=time.time(),
            start=str(EventId(position.epoch, position.last)),
        )
        with producing(self._tracer, f"{self._bus.subjects.namespace}.jobs.{KIND}") as (span, headers):
            span.set_attributes({names.JOB_ID: job_id, names.JOB_KIND: KIND})
            return await self._queueing.put(job, headers, trace_id())

    async def state(self, job_id: str) -> JobState:
        """The job's record. Raises NotFound, BrokerUnavailable."""
        return await self._states.get(_checked(job_id))

    async def cancel(self, job_id: str) -> JobState:
        """Asks for the job's end, however often; a job that has ended stays as it is.

        The record keeps the wish for a worker that takes the job later, the announcement reaches one that has it now.
        Raises NotFound, BrokerUnavailable.
        """

        def wish(state: JobState) -> JobState | None:
            return None if state.status.final or state.cancel else msgspec.structs.replace(state, cancel=True)

        state = await self._states.change(_checked(job_id), wish)
        if not state.status.final:
            await announce_cancel(self._bus, job_id)
        return state


def _checked(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound("a job's id is 32 hexadecimal digits")
    return job_id
