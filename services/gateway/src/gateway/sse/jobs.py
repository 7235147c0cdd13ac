"""`/api/sse/jobs/{job_id}`: a job's own stream, from its start, which ends with the job."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.hub.tails import filtered
from gateway.sse import request as stream_request
from gateway.sse.endpoint import StreamEndpoint
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.jobs.events import belongs, end_place
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState
from tidegate_common.errors import Unavailable

METHODS = ["GET", "HEAD", "OPTIONS"]


class JobStreams:
    """An ASGI app for the route with `job_id`. The stream itself is an ordinary one, of the job's events alone."""

    def __init__(self, streams: StreamEndpoint, bus: Bus, history: History) -> None:
        self._streams = streams
        self._history = history
        self._states = JobRecords(bus, history.leaders)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            await Response(status_code=204, headers={"allow": ", ".join(METHODS)})(scope, receive, send)
            return
        self._streams.admit(request)
        fields = stream_request.Fields.of(scope["headers"])
        query = scope["query_string"]
        client_id, last_event_id = stream_request.of_job_query(query, fields, self._streams.ignored)
        try:
            state = await self._state(request.path_params["job_id"])
            position = await self._history.patient_position()
        except Unavailable as error:
            self._streams.refused(error)
            raise
        ends_at = end_place(state, position)
        if last_event_id is not None and await self._has_all(state, last_event_id, position, ends_at):
            # EventSource comes back whenever a stream ends; this is how it is told that there is nothing more.
            await Response(status_code=204, headers={"cache-control": "no-store"})(scope, receive, send)
            return
        tails = [filtered(state.tail, state.job_id)]
        asked = stream_request.StreamRequest(
            client_id,
            tails,
            last_event_id,
            (f"job:{state.job_id}",),
            since=state.start,
            ends_at=ends_at,
            job_id=state.job_id,
            job_trace_id=state.trace_id,
        )
        await self._streams.serve(request, asked, send)

    async def _state(self, job_id: str) -> JobState:
        """The job's record. Raises NotFound, BrokerUnavailable."""
        state = await self._states.get(job_id)
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
