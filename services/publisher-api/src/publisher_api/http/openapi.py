"""The API's description: OpenAPI 3.1, made from the Structs that check the requests."""

from __future__ import annotations

from typing import Any

import msgspec

from publisher_api.bodies import BatchLine, BroadcastBody, ChatBody, JobBody, RetryBody, SendBody, TicketBody
from publisher_api.http.job_endpoints import LISTED, MOST, NOT_SHOWN
from publisher_api.http.revocation_endpoints import PATH as REVOCATIONS
from publisher_api.http.revocation_endpoints import RevocationBody
from publisher_api.http.statuses import EVERYWHERE, MEANINGS
from publisher_api.http.ticket_endpoints import PATH as TICKETS
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import DeadJob, JobState
from tidegate_common.contract.revocation import KINDS
from tidegate_common.runtime.api_description import SCHEMES, ProblemDetails, ref, refs, responses


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer to a send: `id` is null for a volatile event."""

    id: str | None
    trace_id: str
    duplicate: bool = False
    delivered: int | msgspec.UnsetType | None = msgspec.UNSET
    incomplete: bool = False


class Presence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Open connections that hear what is sent to the name; `incomplete` if a gateway did not answer in time."""

    connections: int
    incomplete: bool = False


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many connections were ended; `incomplete` if a gateway did not answer in time."""

    ended: int
    incomplete: bool = False


class TicketMade(msgspec.Struct, frozen=True):
    """Answer to a ticket: it has 30 seconds to its first use, and is good until `expires` (Unix seconds) then."""

    ticket: str
    expires: int


class LineResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one line: an `id`, or a problem."""

    line: int
    status: int
    id: str | None = None
    duplicate: bool = False
    delivered: int | msgspec.UnsetType | None = msgspec.UNSET
    incomplete: bool = False
    type: str | None = None
    title: str | None = None
    detail: str | None = None
    field: str | None = None
    allowed: str | None = None
    needed: str | None = None
    reason: str | None = None
    limit: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One result for each line that is not empty, in line order."""

    accepted: int
    refused: int
    results: list[LineResult]
    trace_id: str


class JobAccepted(msgspec.Struct, frozen=True):
    """Answer to a job: ask for its state, watch its own stream, or cancel it, by its id."""

    job_id: str
    trace_id: str
    stream: str


class JobRetried(JobAccepted, frozen=True):
    """Answer to the retry of a dead job, which is a new one."""

    retry_of: str


class JobAnswer(JobState, frozen=True, kw_only=True):
    """A job's record, and what it has answered so far."""

    answer: Answer


class DeadListed(msgspec.Struct, frozen=True):
    """A job that failed through no fault of its own."""

    job_id: str
    kind: str
    tail: str
    error: str
    attempts: int
    created: float
    failed: float
    trace_id: str


class DeadList(msgspec.Struct, frozen=True):
    """Those that failed last, the newest first, and how many are kept."""

    jobs: list[DeadListed]
    total: int


class RevocationAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is revoked: one of the four. `before` is null if all is, and `until` if it has no end. Unix seconds."""

    before: float | None
    until: float | None
    at: float
    sub: str | None = None
    jti: str | None = None
    key: str | None = None
    client_id: str | None = None


class RevocationList(msgspec.Struct, frozen=True):
    """Those that were made last, the newest first, and how many are in force."""

    revocations: list[RevocationAnswer]
    total: int


_TYPES = (
    SendBody,
    BroadcastBody,
    BatchLine,
    ChatBody,
    Accepted,
    BatchAnswer,
    JobBody,
    RetryBody,
    JobAccepted,
    JobRetried,
    JobState,
    JobAnswer,
    DeadJob,
    DeadList,
    Presence,
    Ended,
    RevocationBody,
    RevocationAnswer,
    RevocationList,
    TicketBody,
    TicketMade,
    ProblemDetails,
)
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "The same key again does nothing and gives the first answer's id; with another request it is refused. Only "
        "with durable events (a batch line's is the key and the line's number)."
    ),
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": LISTED},
}
_BODY = (413, 415)
"""Problems of calls with a body."""

PUBLISH = "`publish` for the target"
SUBMIT = "`jobs`, and `publish` for a target that is not the own user or client"
OWN = "to be the job's owner, or whom it addresses, or `jobs:*`"
DEAD = "`admin dead`"


def document(asks: bool = True) -> dict[str, Any]:
    """The whole description, as JSON-ready values. `asks`: whether everyone is asked who they are."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    for record in ("Job", "JobState", "JobAnswer"):
        for hidden in NOT_SHOWN:
            components[record]["properties"].pop(hidden, None)
    note = {"event_type": "note", "data": {"text": "hello"}}
    job = [{"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}]
    gone = (404,)
    name = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate publisher API",
            "version": "1",
            "description": (
                "Publish events to browsers, and start AI answers that stream to them. In the mode `token` each call "
                "needs a token or a key, and the rights that it names."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in SCHEMES] if asks else [],
        "paths": {
            "/api/sse/send": {
                "post": _post(
                    "Send an event", "SendBody", 202, "Accepted", PUBLISH, example={"client_id": "ann", **note}
                )
            },
            "/api/sse/broadcast": {
                "post": _post(
                    "Send an event to everyone", "BroadcastBody", 202, "Accepted", "`publish broadcast`", example=note
                )
            },
            "/api/sse/batch": {
                "post": _post(
                    "Send many events, one JSON object per line",
                    "BatchLine",
                    200,
                    "BatchAnswer",
                    f"{PUBLISH}, each line by itself",
                    media="application/x-ndjson",
                    example='{"topic":"prices.eur","event_type":"price","data":1.09}\n',
                )
            },
            "/api/presence/clients/{name}": {
                "parameters": name,
                "get": _operation("Connections of a client", {200: "Presence"}, "`admin presence`"),
                "delete": _operation("End all connections of a client", {200: "Ended"}, "`admin kick`"),
            },
            "/api/presence/users/{name}": {
                "parameters": name,
                "get": _operation("Connections of a user", {200: "Presence"}, "`admin presence`"),
                "delete": _operation("End all connections of a user", {200: "Ended"}, "`admin kick`"),
            },
            "/api/presence/topics/{name}": {
                "parameters": name,
                "get": _operation("Connections that hear a topic", {200: "Presence"}, "`admin presence`"),
            },
            "/api/ai/chat": {
                "post": _post(
                    "Start an AI answer",
                    "ChatBody",
                    202,
                    "JobAccepted",
                    SUBMIT,
                    example={"client_id": "ann", "prompt": "Tell me about the tides."},
                )
            },
            "/api/ai/jobs": {
                "post": _post(
                    "Start a job of any kind",
                    "JobBody",
                    202,
                    "JobAccepted",
                    SUBMIT,
                    example={
                        "client_id": "ann",
                        "kind": "transform",
                        "params": {"text": "The tide is coming in.", "instruction": "Translate into French"},
                    },
                )
            },
            **{
                f"/api/ai/{kind}/{{job_id}}": {
                    "parameters": job,
                    "get": _operation(f"State and answer of a {name_}", {200: "JobAnswer"}, OWN, gone),
                    "delete": _operation(f"Cancel a {name_}", {202: "JobState", 200: "JobState"}, OWN, gone),
                }
                for kind, name_ in (("chat", "chat"), ("jobs", "job"))
            },
            "/api/ai/dead": {
                "get": {**_operation("List dead jobs", {200: "DeadList"}, DEAD), "parameters": [_LIMIT]},
            },
            "/api/ai/dead/{job_id}": {
                "parameters": job,
                "get": _operation("A dead job", {200: "DeadJob"}, DEAD, gone),
                "delete": _operation("Forget a dead job", {204: ""}, DEAD, gone),
            },
            **({REVOCATIONS: _revocations(), TICKETS: _tickets()} if asks else {}),
            "/api/ai/dead/{job_id}/retry": {
                "parameters": job,
                "post": {
                    **_operation("Try a dead job again", {202: "JobRetried"}, DEAD, (404, *_BODY)),
                    "requestBody": {
                        "required": False,
                        "content": {"application/json": {"schema": ref("RetryBody"), "example": {}}},
                    },
                },
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": SCHEMES,
            "responses": responses(MEANINGS, ref("ProblemDetails")),
        },
    }


def _revocations() -> dict[str, Any]:
    named = [{"name": kind, "in": "query", "schema": {"type": "string", "minLength": 1}} for kind in KINDS]
    right = "`admin revoke`"
    post = _post("Revoke tokens or a key", "RevocationBody", 200, "RevocationAnswer", right, example={"sub": "ann"})
    del post["parameters"]
    return {
        "post": post,
        "get": {
            **_operation("List revocations", {200: "RevocationList"}, right),
            "parameters": [_LIMIT, *named],
        },
        "delete": {
            **_operation("Take a revocation back", {204: ""}, right, (404,)),
            "parameters": named,
        },
    }


def _post(
    summary: str, body: str, status: int, result: str, right: str, *, example: Any, media: str = "application/json"
) -> dict[str, Any]:
    found = _operation(summary, {status: result}, right, _BODY)
    schema: dict[str, Any] = ref(body) if media == "application/json" else {"type": "string", "description": body}
    found["parameters"] = [_KEY]
    found["requestBody"] = {"required": True, "content": {media: {"schema": schema, "example": example}}}
    return found


def _tickets() -> dict[str, Any]:
    right = "a token or a key, and what opening the stream needs"
    example = {"topic": ["prices.eur"]}
    return {
        "post": {
            **_operation("Make a ticket for one stream", {201: "TicketMade"}, right, (404, *_BODY)),
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": ref("TicketBody"), "example": example}},
            },
        }
    }


def _operation(summary: str, results: dict[int, str], right: str, own: tuple[int, ...] = ()) -> dict[str, Any]:
    done: dict[str, Any] = {
        str(status): {
            "description": "Accepted" if status == 202 else "Done",
            **({"content": _content(result)} if result else {}),
        }
        for status, result in results.items()
    }
    return {
        "summary": summary,
        "description": f"In the mode `token`, this needs: {right}.",
        "operationId": summary.lower().replace(",", "").replace(" ", "-"),
        "responses": {**done, **refs((*EVERYWHERE, *own))},
    }


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": ref(name)}}
