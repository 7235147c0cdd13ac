"""The statuses of problems, for the API's description: what each means, and which of them any call may answer."""

from __future__ import annotations

MEANINGS = {
    400: "The body is no JSON, the `Host` can't be used, or the request is no HTTP",
    401: "No good token or key, if services are asked for them: `reason` says why, and the token's holder gets another",
    403: "The token or key has not the right that `needed` names, or another site's page has sent the request",
    404: "No such job, or no such revocation",
    408: "The request came too slowly",
    413: "The body or the data is too large",
    415: "Another media type is expected, or the body is compressed",
    421: "The `Host` is not one of this service's",
    422: "A field or a parameter is not allowed as it is",
    429: "A limit is reached, which `limit` names, or too many requests wait on this connection",
    431: "The request's headers are too large",
    500: "A fault of the service's: its log has the `trace_id`",
    503: "NATS is away, the queue is full, or too much waits: come back after `Retry-After` seconds",
    505: "Only HTTP/1.1 and HTTP/1.0 are spoken",
}
EVERYWHERE = (400, 401, 403, 408, 421, 422, 429, 431, 500, 503, 505)
"""Whatever is called."""
