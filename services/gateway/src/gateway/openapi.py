"""The gateway's own description at `/openapi.json`: OpenAPI 3.1, made from the Structs that check the requests."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.openai.http import PATH as COMPLETIONS
from gateway.openai.request import CompletionBody
from gateway.sse.endpoint import JOB_PATH, PATH
from gateway.sse.request import JOB_PARAMETERS, PARAMETERS, StreamBody
from tidegate_common.runtime.api_description import SCHEMES, ProblemDetails, ref, refs, responses

OPENAPI = "/openapi.json"


class ApiFault(msgspec.Struct, frozen=True):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ApiErrorBody(msgspec.Struct, frozen=True):
    """An error below `/v1`."""

    error: ApiFault


class Model(msgspec.Struct, frozen=True):
    """A model that a completion may name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelPage(msgspec.Struct, frozen=True):
    """Those that whoever asks may use."""

    object: Literal["list"]
    data: list[Model]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer's text."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning_content: str | None = None


class Choice(msgspec.Struct, frozen=True):
    """One of the answers."""

    index: int
    message: Message
    logprobs: None
    finish_reason: str


class TokenUsage(msgspec.Struct, frozen=True):
    """What it has cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(msgspec.Struct, frozen=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage


class Alive(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the process is."""

    status: str
    service: str
    fault: str | None = None


class Ready(msgspec.Struct, frozen=True):
    """Whether it may take traffic. `faults` are its own, `dependencies` what others lack, by name."""

    status: str
    service: str
    faults: dict[str, str]
    dependencies: dict[str, str]


_TYPES = (StreamBody, CompletionBody, ChatCompletion, Model, ModelPage, ApiErrorBody, ProblemDetails, Alive, Ready)

MEANINGS = {
    400: "The body is no JSON, the `Host` or the credentials can't be used, or the request is no HTTP",
    401: "No good token, key or ticket, if everyone is asked who they are: `reason` says why",
    403: "Whoever asks has not the right that `needed` names, or another site's page has sent the request",
    404: "No such job, or another's",
    408: "The request came too slowly",
    413: "The body is too large",
    415: "Another media type is expected, or the body is compressed",
    421: "The `Host` is not one of this service's",
    422: "A field or a parameter is not allowed as it is",
    429: "A limit is reached, which `limit` names; one address has too many connections",
    431: "The request's headers are too large",
    500: "A fault of the service's: its log has the `trace_id`",
    503: "The gateway is full or is stopping, or NATS is away: come back after `Retry-After` seconds",
    505: "Only HTTP/1.1 and HTTP/1.0 are spoken",
}
API_MEANINGS = {
    400: "A field is wrong, unknown or not supported: `param` names it",
    401: "No good token or key (`invalid_api_key`)",
    403: "The right `jobs` is missing, or does not cover this",
    404: "No such model, or none that whoever asks may use; or the answer is not kept any more",
    409: "Somebody else has cancelled it",
    413: "The body is too large",
    415: "Another media type is expected, or the body is compressed",
    421: "The `Host` is not one of this service's",
    422: "The `Idempotency-Key` was sent with another request",
    429: "`rate_limit_exceeded`, or `insufficient_quota`: no tokens are left today",
    500: "The job has failed, or the service has",
    502: "The model's backend has failed",
    503: "The queue or the gateway is full, or NATS is away: come back after `Retry-After` seconds",
    504: "Not done in time",
}
"""Below `/v1`, in OpenAI's shape. What comes before there is a request has problem details there too."""

API = "api-"
"""Before the names of those responses."""

EVERYWHERE = (400, 401, 403, 408, 421, 422, 429, 431, 500, 503, 505)
BODY = (413, 415)
_BEFORE = (408, 431, 505)
"""Come before the path is known."""

_EVENT_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
_WORDS = {
    "client_id": "Whose connection it is; made if it is not given.",
    "user_id": "A user whose events are heard, too.",
    "topic": "Topics to hear: `*` stands for one token, a last `>` for one or more.",
    "last_event_id": "Where to go on, without the header `Last-Event-ID`.",
    "lastEventId": "The same, as polyfills append it.",
    "evs_last_event_id": "The same, as polyfills append it.",
}
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "Where to go on: the last id that the client has.",
    "schema": {"type": "string"},
}
_TICKET = {
    "type": "apiKey",
    "in": "query",
    "name": "ticket",
    "description": "Opens one stream, for clients that can't send a header (publisher-api gives it).",
}


def document(asks: bool = True) -> dict[str, Any]:
    """The whole description, as JSON-ready values. `asks`: whether everyone is asked who they are."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate gateway",
            "version": "1",
            "description": "Streams of events, and completions for OpenAI's clients.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in SCHEMES] if asks else [],
        "paths": {**_streams(asks), **_openai(), **_probes()},
        "components": {
            "schemas": schemas,
            "securitySchemes": {**SCHEMES, "ticket": _TICKET},
            "responses": {
                **responses(MEANINGS, ref("ProblemDetails")),
                **{
                    f"{API}{status}": response
                    for status, response in responses(API_MEANINGS, ref("ApiErrorBody"), "application/json").items()
                },
            },
        },
    }


def openapi_route(asks: bool) -> Route:
    """Made once."""
    description = msgspec.json.encode(document(asks))

    async def openapi(_: Request) -> Response:
        return Response(description, media_type="application/json")

    return Route(OPENAPI, openapi)


def _streams(asks: bool) -> dict[str, Any]:
    security: dict[str, Any] = {"security": [{name: []} for name in (*SCHEMES, "ticket")]} if asks else {}
    stream = {"description": "Events, until one of both sides ends it", "content": _EVENT_STREAM}
    job = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
    hears = "the own user and client may be heard always, anything else by a grant in `subscribe`"
    return {
        PATH: {
            "get": {
                **_operation("Open a stream", {"200": stream}, refs(EVERYWHERE), hears),
                "parameters": [*map(_query, PARAMETERS), _LAST],
                **security,
            },
            "post": {
                **_operation("Open a stream by a body", {"200": stream}, refs((*EVERYWHERE, *BODY)), hears),
                "parameters": [_LAST],
                "requestBody": _json_body("StreamBody", {"user_id": "ann", "topic": ["prices.*"]}),
                **security,
            },
        },
        JOB_PATH: {
            "get": {
                **_operation(
                    "Watch a job",
                    {"200": stream, "204": {"description": "It has ended, and the client has all of it"}},
                    refs((*EVERYWHERE, 404)),
                    "to be the job's owner, or whom it addresses, or `jobs:*`",
                ),
                "parameters": [job, *map(_query, JOB_PARAMETERS), _LAST],
                **security,
            }
        },
    }


def _openai() -> dict[str, Any]:
    faults = {**refs(API_MEANINGS, API), **refs(_BEFORE)}
    answer = {
        "description": "Done",
        "content": {"application/json": {"schema": ref("ChatCompletion")}, **_EVENT_STREAM},
    }
    ask = {"model": "any", "messages": [{"role": "user", "content": "Tell me about the tides."}]}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        COMPLETIONS: {
            "post": {
                **_operation("Complete a chat", {"200": answer}, faults, "`jobs`"),
                "requestBody": _json_body("CompletionBody", ask),
            }
        },
        "/v1/models": {"get": _operation("List models", {"200": _json("ModelPage")}, faults, "`jobs`")},
        "/v1/models/{model}": {
            "parameters": [name],
            "get": _operation("A model", {"200": _json("Model")}, faults, "`jobs`"),
        },
    }


def _probes() -> dict[str, Any]:
    metrics = {"description": "Done", "content": {"text/plain": {"schema": {"type": "string"}}}}
    nobody: dict[str, Any] = {"security": []}
    return {
        "/healthz": {
            "get": {**_operation("Is it alive", {"200": _json("Alive"), "503": _json("Alive")}, {}), **nobody}
        },
        "/readyz": {
            "get": {**_operation("May it take traffic", {"200": _json("Ready"), "503": _json("Ready")}, {}), **nobody}
        },
        "/metrics": {"get": _operation("Metrics", {"200": metrics}, refs((401, 403)), "`admin metrics`")},
    }


def _operation(summary: str, results: dict[str, Any], faults: dict[str, Any], right: str = "") -> dict[str, Any]:
    told = {"description": f"In the mode `token`: {right}."} if right else {}
    name = summary.lower().replace(" ", "-")
    return {"summary": summary, **told, "operationId": name, "responses": {**results, **faults}}


def _query(name: str) -> dict[str, Any]:
    text = {"type": "string"}
    schema: dict[str, Any] = {"type": "array", "items": text} if name == "topic" else text
    return {"name": name, "in": "query", "description": _WORDS[name], "schema": schema}


def _json(name: str) -> dict[str, Any]:
    return {"description": "Done", "content": {"application/json": {"schema": ref(name)}}}


def _json_body(name: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": ref(name), "example": example}}}
