"""The endpoints of jobs: from a request to a use case and back."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from publisher_api.bodies import (
    CHAT_BODY,
    JOB_BODY,
    RETRY_BODY,
    JobFields,
    Target,
    chat_of,
    job_target_of,
    kind_of,
)
from publisher_api.http.endpoints import answer
from publisher_api.http.slow_bodies import BodyReader
from publisher_api.jobs.dead import DeadLetters
from tidegate_common.auth.identity import Identity
from tidegate_common.auth.job_access import is_own, reachable
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.cancel import Cancellation
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.jobs.submit import JobSubmitter
from tidegate_common.contract.ids import keyed_id, new_job_id
from tidegate_common.contract.jobs import CHAT, DeadJob, Job, JobState, request_hash
from tidegate_common.contract.subjects import job_tail
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.authentication import address_of, principal_of
from tidegate_common.runtime.body import decode
from tidegate_common.runtime.query import address_owner, idempotency_key, once
from tidegate_common.telemetry.propagation import trace_id

LISTED, MOST = 100, 1_000
"""Entries of a list that are given if nobody says how many, and at most."""

PARAMETERS = {"/api/ai/dead": ("limit",)}
"""What the query strings of these paths may hold; no other path takes any."""

NOT_SHOWN = frozenset({"owner", "holder", "request", "revision", "budget", "max_tokens"})
"""Fields of a record, and of a job as it was queued, that are the services' own: an owner may be an address."""


class JobEndpoints:
    """All of them; each raises TidegateErrors, which become problem details."""

    def __init__(
        self,
        submitter: JobSubmitter,
        records: JobRecords,
        history: History,
        cancels: Cancellation,
        dead: DeadLetters,
        identity: Identity,
        max_body_bytes: int,
    ) -> None:
        self._submitter = submitter
        self._records = records
        self._history = history
        self._cancels = cancels
        self._dead = dead
        self._client_ids = identity.client_ids
        self._audit = identity.audit_log
        self._bodies = BodyReader(identity)
        self._limits = identity.limits
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/api/ai/chat", self.chat, methods=["POST"]),
            Route("/api/ai/jobs", self.job, methods=["POST"]),
            # One route for both: with two, a 405 would name the methods of the first alone.
            Route("/api/ai/chat/{job_id}", self.one, methods=["GET", "DELETE"]),
            Route("/api/ai/jobs/{job_id}", self.one, methods=["GET", "DELETE"]),
            Route("/api/ai/dead", self.dead, methods=["GET"]),
            Route("/api/ai/dead/{job_id}", self.dead_one, methods=["GET", "DELETE"]),
            Route("/api/ai/dead/{job_id}/retry", self.retry, methods=["POST"]),
        ]

    async def chat(self, request: Request) -> Response:
        self._limits.job(principal_of(request), address_of(request))
        key = idempotency_key(request)
        body = decode(CHAT_BODY, await self._bodies.read(request, self._max_body_bytes))
        return await self._submit(request, key, CHAT, msgspec.to_builtins(chat_of(body)), body)

    async def job(self, request: Request) -> Response:
        self._limits.job(principal_of(request), address_of(request))
        key = idempotency_key(request)
        body = decode(JOB_BODY, await self._bodies.read(request, self._max_body_bytes))
        return await self._submit(request, key, kind_of(body), body.params, body)

    async def _submit(
        self, request: Request, key: str | None, kind: str, params: dict[str, Any], fields: JobFields
    ) -> Response:
        principal = principal_of(request)
        job_id = new_job_id() if key is None else keyed_id("job", *principal.key_words(key))
        target = job_target_of(fields)
        tail = job_tail(job_id) if target is None else target.tail
        if target is not None and not is_own(principal, tail, self._client_ids):
            principal.check_publishes(*target)
        asked = kind, tail, params, fields.deadline_seconds, fields.on_disconnect, fields.grace_seconds
        job = await self._submitter.draft(
            job_id,
            kind,
            params,
            principal=principal,
            tail=tail,
            owner=_owner(request, fields, target),
            request="" if key is None else request_hash(*asked),
            seconds=fields.deadline_seconds,
            on_disconnect=fields.on_disconnect,
            grace_seconds=fields.grace_seconds,
        )
        return answer(_started(await self._submitter.submit(job, principal)), 202)

    async def one(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        state = await reachable(self._records, job_id, principal_of(request), self._client_ids)
        if request.method == "DELETE":
            state = await self._cancels.cancel(job_id)
            return answer(_shown(state), 200 if state.status.final else 202)
        found = await read_answer(self._history, job_id, state.tail, state.start, state.end)
        return answer({**_shown(state), "answer": found}, 200)

    async def dead(self, request: Request) -> Response:
        most = limit_of(request)
        principal_of(request).check_admin("dead")
        with self._act(request, "list dead jobs"):
            jobs, total = await self._dead.latest(most)
        return answer({"jobs": [_listed(each) for each in jobs], "total": total}, 200)

    async def dead_one(self, request: Request) -> Response:
        principal_of(request).check_admin("dead")
        job_id = request.path_params["job_id"]
        if request.method == "DELETE":
            with self._act(request, "forget dead job"):
                await self._dead.remove(job_id)
            return Response(status_code=204)
        with self._act(request, "read dead job"):
            found = await self._dead.get(job_id)
        return answer({**msgspec.to_builtins(found), "job": _shown(found.job)}, 200)

    async def retry(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        # Read for its media type: a page of another origin sends none of JSON without being allowed to (CORS).
        decode(RETRY_BODY, await self._bodies.read(request, self._max_body_bytes) or b"{}")
        principal_of(request).check_admin("dead")
        with self._act(request, "retry dead job"):
            state = await self._dead.retry(job_id)
        return answer({**_started(state), "retry_of": job_id}, 202)

    def _act(self, request: Request, what: str) -> AbstractContextManager[None]:
        """For the audit log."""
        target = request.path_params.get("job_id", "")
        return self._audit.act(principal_of(request), what, target, address_of(request), trace_id())


def _owner(request: Request, fields: JobFields, target: Target | None) -> str:
    """The owner of what is asked for: the principal. In the mode `open` it is whom the job addresses, or the address.

    With its own tail as the owner, each job would be the first one of its owner, and go before all others.
    """
    principal = principal_of(request)
    if principal.is_open:
        return "" if target is not None else address_owner(request)
    return principal.owner(fields.user_id or fields.client_id or "")


def _shown(told: JobState | Job) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(told).items() if name not in NOT_SHOWN}


def _started(state: JobState) -> dict[str, str]:
    return {"job_id": state.job_id, "trace_id": state.trace_id, "stream": f"/api/sse/jobs/{state.job_id}"}


def _listed(dead: DeadJob) -> dict[str, object]:
    """Without what was asked for, which may be long, and private."""
    return {
        "job_id": dead.job.job_id,
        "kind": dead.job.kind,
        "tail": dead.job.tail,
        "error": dead.error,
        "attempts": dead.attempts,
        "created": dead.job.created,
        "failed": dead.failed,
        "trace_id": dead.trace_id,
    }


def limit_of(request: Request) -> int:
    """How many entries of a list are asked for. Raises InvalidField."""
    text = once(request.state.query, "limit") or str(LISTED)
    # ASCII's digits alone, and few of them: Python reads others too, and raises for more than 4,300.
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST:
        raise InvalidField("limit", f"a number from 1 to {MOST}")
    return int(text)
