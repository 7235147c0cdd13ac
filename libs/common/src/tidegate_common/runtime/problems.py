"""The one table from Tidegate's errors to HTTP: RFC 9457 problem details."""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
from rfc9457 import Problem
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tidegate_common import errors
from tidegate_common.telemetry.logging import mark_said
from tidegate_common.telemetry.masking import masked
from tidegate_common.telemetry.propagation import context_fields, trace_id, trace_id_of

log = logging.getLogger(__name__)

_NOTED = "tidegate_trace_id"

REFUSED = "tidegate.refused"
"""Under this name a request's scope has the error that was its answer."""

PROBLEM_JSON = "application/problem+json"

REFUSALS = (errors.Unauthenticated, errors.Forbidden, errors.Limited)
"""What is noted in the audit log."""

# The first class that fits decides: (class, status, problem type, title).
TABLE: list[tuple[type[errors.TidegateError], int, str, str]] = [
    (errors.InvalidBody, 400, "invalid-body", "The body can't be read"),
    (errors.InvalidField, 422, "invalid-field", "A field is not allowed as it is"),
    (errors.InvalidHost, 400, "invalid-host", "The Host header can't be used"),
    (errors.WrongHost, 421, "wrong-host", "Not a host of this service"),
    (errors.InvalidCredentials, 400, "invalid-credentials", "The credentials can't be read"),
    (errors.Unauthenticated, 401, "unauthenticated", "No good token or key"),
    (errors.Forbidden, 403, "forbidden", "Not allowed"),
    (errors.Limited, 429, "limited", "A limit is reached"),
    (errors.NotFound, 404, "not-found", "Not found"),
    (errors.TooLarge, 413, "too-large", "Too large"),
    (errors.UnsupportedMedia, 415, "unsupported-media-type", "Unsupported media type"),
    (errors.UnsupportedCoding, 415, "unsupported-content-encoding", "Unsupported content encoding"),
    (
        errors.TooManyFromAddress,
        429,
        "too-many-connections-from-address",
        "Too many connections from this address",
    ),
    (errors.TooManyConnections, 503, "too-many-connections", "Too many connections"),
    (errors.QueueFull, 503, "queue-full", "The queue is full"),
    (errors.Unavailable, 503, "unavailable", "Temporarily unavailable"),
]


def problem_of(error: Exception) -> Problem:
    """`error` as problem details: `type`, `title`, `status`, `detail`, and what else helps (`field`, `allowed`).

    It may be shared, and is never changed.
    """
    if isinstance(error, HTTPException):
        title = HTTPStatus(error.status_code).phrase
        detail = error.detail if error.detail != title else None
        return Problem(title, "about:blank", detail, error.status_code, dict(error.headers or {}))
    if type(error) is errors.Unauthenticated:
        return _unauthenticated(error.reason, error.needed, str(error))
    return _problem_of(error)


@lru_cache(maxsize=256)
def _unauthenticated(reason: str, needed: str, told: str) -> Problem:
    """Strangers bring it about, as often as they like, and nearly always the same."""
    return _problem_of(errors.Unauthenticated(reason, needed, told))


def _problem_of(error: Exception) -> Problem:
    for kind, status, type_, title in TABLE:
        if isinstance(error, kind):
            extras: dict[str, Any] = {}
            headers: dict[str, str] = {}
            if isinstance(error, errors.InvalidField):
                extras = {"field": error.field, "allowed": error.allowed}
            if isinstance(error, errors.QueueFull) and error.queued is not None:
                extras = {"queued": error.queued}
            if isinstance(error, errors.Unauthenticated):
                headers["WWW-Authenticate"] = challenge(error)
                extras = {"reason": error.reason}
            if isinstance(error, (errors.Forbidden, errors.Unauthenticated)) and error.needed:
                extras["needed"] = error.needed
            if isinstance(error, errors.Limited):
                extras = {"limit": error.limit}
            if isinstance(error, errors.UnsupportedCoding):
                headers["Accept-Encoding"] = "identity"
            retry_after = getattr(error, "retry_after", None)
            if retry_after is not None:
                headers["Retry-After"] = str(retry_after)
            # What the caller sent is told back in some of them.
            told = {name: masked(value) if isinstance(value, str) else value for name, value in extras.items()}
            return Problem(title, f"urn:tidegate:problem:{type_}", masked(str(error)), status, headers, **told)
    return Problem("Internal error", "urn:tidegate:problem:internal", None, 500)


def challenge(error: errors.Unauthenticated) -> str:
    """The `WWW-Authenticate` of a 401 (RFC 6750, 3): without an error code if the request brought nothing (3.1)."""
    if error.reason == "missing":
        return 'Bearer realm="tidegate"'
    return f'Bearer realm="tidegate", error="invalid_token", error_description="{error.reason}"'


def note_trace(error: Exception, found: str) -> None:
    """`error` was raised in the trace `found`, whose span is over by the time that it is answered."""
    vars(error)[_NOTED] = found


def trace_of(error: Exception, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id of the trace in which `error` is answered: the current one, the one of the request's `headers`, or new."""
    return vars(error).get(_NOTED) or trace_id() or trace_id_of(context_fields(headers))


def mark_refused(scope: MutableMapping[str, Any], error: Exception) -> None:
    """`error` is the answer to the request of `scope`: the audit log has it, of the same trace."""
    note_trace(error, trace_of(error, scope["headers"]))
    scope[REFUSED] = error


def unforeseen_response(error: Exception, headers: Iterable[tuple[bytes, bytes]]) -> Response:
    """The answer to an error of ours, which is logged with its stack."""
    note_trace(error, trace_of(error, headers))
    log.error("unforeseen error", exc_info=error, extra={"trace_id": trace_of(error, ())})
    mark_said(error)
    return problem_response(error)


def problem_response(error: Exception, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """`error` as an HTTP answer to a request with `headers` (names in lower case); carries the trace's id."""
    problem = problem_of(error)
    # Not by JSONResponse: Python's json takes more than all else here, and a refusal has to be cheap.
    body = msgspec.json.encode({**problem.marshal(), "trace_id": trace_of(error, headers)})
    return Response(body, problem.status, dict(problem.headers or {}), media_type=PROBLEM_JSON)


def install(app: Starlette) -> None:
    """All errors of `app` are answered as problem details; those that nobody foresaw are logged with their stack."""

    async def expected(request: Request, error: Exception) -> Response:
        if isinstance(error, REFUSALS):
            mark_refused(request.scope, error)
        return problem_response(error, request.scope["headers"])

    async def unforeseen(request: Request, error: Exception) -> Response:
        return unforeseen_response(error, request.scope["headers"])

    app.add_exception_handler(errors.TidegateError, expected)
    app.add_exception_handler(HTTPException, expected)
    app.add_exception_handler(Exception, unforeseen)
