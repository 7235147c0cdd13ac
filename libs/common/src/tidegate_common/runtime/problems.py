"""The one table from Tidegate's errors to HTTP: RFC 9457 problem details."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from rfc9457 import Problem
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tidegate_common import errors
from tidegate_common.telemetry.propagation import trace_id

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"

# The first class that fits decides: (class, status, problem type, title).
TABLE: list[tuple[type[errors.TidegateError], int, str, str]] = [
    (errors.InvalidBody, 400, "invalid-body", "The body can't be read"),
    (errors.InvalidField, 422, "invalid-field", "A field is not allowed as it is"),
    (errors.InvalidHost, 400, "invalid-host", "The Host header can't be used"),
    (errors.WrongHost, 421, "wrong-host", "Not a host of this service"),
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
    """`error` as problem details: `type`, `title`, `status`, `detail`, and what else helps (`field`, `allowed`)."""
    if isinstance(error, HTTPException):
        title = HTTPStatus(error.status_code).phrase
        detail = error.detail if error.detail != title else None
        return Problem(title, "about:blank", detail, error.status_code, dict(error.headers or {}))
    for kind, status, type_, title in TABLE:
        if isinstance(error, kind):
            extras: dict[str, Any] = {}
            headers: dict[str, str] = {}
            if isinstance(error, errors.InvalidField):
                extras = {"field": error.field, "allowed": error.allowed}
            if isinstance(error, errors.QueueFull) and error.queued is not None:
                extras = {"queued": error.queued}
            if isinstance(error, errors.UnsupportedCoding):
                headers["Accept-Encoding"] = "identity"
            retry_after = getattr(error, "retry_after", None)
            if retry_after is not None:
                headers["Retry-After"] = str(retry_after)
            return Problem(title, f"urn:tidegate:problem:{type_}", str(error), status, headers, **extras)
    return Problem("Internal error", "urn:tidegate:problem:internal", None, 500)


def problem_response(error: Exception) -> Response:
    """`error` as an HTTP answer; carries the trace id where there is one."""
    problem = problem_of(error)
    body = problem.marshal()
    found = trace_id()
    if found:
        body["trace_id"] = found
    return JSONResponse(body, problem.status, dict(problem.headers or {}), media_type=PROBLEM_JSON)


def install(app: Starlette) -> None:
    """All errors of `app` are answered as problem details; those that nobody foresaw are logged with their stack."""

    async def expected(_: Request, error: Exception) -> Response:
        return problem_response(error)

    async def unforeseen(_: Request, error: Exception) -> Response:
        log.error("unforeseen error", exc_info=error)
        return problem_response(error)

    app.add_exception_handler(errors.TidegateError, expected)
    app.add_exception_handler(HTTPException, expected)
    app.add_exception_handler(Exception, unforeseen)
