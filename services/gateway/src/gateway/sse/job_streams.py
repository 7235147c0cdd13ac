"""A job's own stream, `/api/sse/jobs/{job_id}`: from the job's start, and it ends with the job."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from gateway.hub.tails import filtered
from gateway.sse.request import Fields, Listener, StreamRequest, of_job_query
from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.auth.job_access import reachable
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.jobs.events import belongs, end_place
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState
from tidegate_common.contract.principal import Principal
from tidegate_common.runtime.query import Ignored


class JobStreams:
    """What a request for a job's stream asks for. The stream itself is an ordinary one, of the job's events alone."""

    def __init__(self, bus: Bus, history: History, client_ids: ClientIds) -> None:
        self._history = history
        self._client_ids = client_ids
        self._records = JobRecords(bus, history.leaders)

    async def request_of(
        self, principal: Principal, job_id: str, query: bytes, fields: Fields, ignored: Ignored
    ) -> StreamRequest | None:
        """None for a client that has all of the job.

        Raises InvalidField, Unauthenticated, Forbidden (another's client id), NotFound, HTTPException (404),
        Unavailable.
        """
        client_id, last_event_id = of_job_query(query, fields, Listener(principal, self._client_ids), ignored)
        state = await self._state(job_id, principal)
        position = await self._history.patient_position()
        ends_at = end_place(state, position)
        if last_event_id is not None and await self._has_all(state, last_event_id, position, ends_at):
            return None
        return StreamRequest(
            client_id,
            [filtered(state.tail, state.job_id)],
            last_event_id,
            (f"job:{state.job_id}",),
            context=fields.context,
            since=state.start,
            ends_at=ends_at,
            job_id=state.job_id,
            job_trace_id=state.trace_id,
        )

    async def _state(self, job_id: str, principal: Principal) -> JobState:
        """The job's record. Raises NotFound, BrokerUnavailable."""
        state = await reachable(self._records, job_id, principal, self._client_ids)
        if not state.tail or not state.start:
            raise HTTPException(404, f"job {job_id} has no stream of its own")
        return state

    async def _has_all(self, state: JobState, last_event_id: str, position: Position, ends_at: int) -> bool:
        """Whether the client has the job's last event. The record may not say yet that this is stored."""
        had = EventId.parse(last_event_id)
        place = position.place(had) if had is not None else None
        if place is None:
            return False  # none of ours: the stream says so
        if ends_at:
            return place >= ends_at
        async for stored in self._history.after(state.tail, place - 1, place):
            return belongs(stored.header, state.job_id.encode()) and headers.JOB_END in stored.header
        return False
