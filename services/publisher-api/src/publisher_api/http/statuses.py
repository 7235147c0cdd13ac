"""The statuses of problems, for the API's description: what each means, and which of them any call may answer."""

from __future__ import annotations

from typing import Any

MEANINGS = {
    400: "The body is no JSON, the `Host` can't be used, or the request is no HTTP",
    404: "No such job",
    408: "The request came too slowly",
    413: "The body or the data is too large",
    415: "Another media type is expected, or the body is compressed",
    421: "The `Host` is not one of this service's",
    422: "A field or a parameter is not allowed as it is",
    429: "Too many requests wait on this connection",
    431: "The request's headers are too large",
    500: "A fault of the service's: its log has the `trace_id`",
    503: "NATS is away, the queue is full, or too much waits: come back after `Retry-After` seconds",
    505: "Only HTTP/1.1 and HTTP/1.0 are spoken",
}
EVERYWHERE = (400, 408, 421, 422, 429, 431, 500, 503, 505)
"""Whatever is called."""

_RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}}}


def problems(schema: dict[str, Any]) -> dict[str, Any]:
    """A response for each of them, by its status; `schema` is that of problem details."""
    return {
        str(status): {
            "description": meaning,
            "content": {"application/problem+json": {"schema": schema}},
            **({"headers": _RETRY_AFTER} if status == 503 else {}),
        }
        for status, meaning in MEANINGS.items()
    }
