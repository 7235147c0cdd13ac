"""What the OpenAPI documents of all services have in common: how a request says who asks, and how problems look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tidegate_common.runtime.problems import PROBLEM_JSON


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457). `field` and `allowed` if one field is at fault, `queued` if the queue is full, `needed` if a
    right is missing, `reason` if nobody knows who asks, `limit` if one is reached."""

    type: str
    title: str
    status: int
    trace_id: str
    detail: str | None = None
    field: str | None = None
    allowed: str | None = None
    queued: int | None = None
    needed: str | None = None
    reason: str | None = None
    limit: str | None = None


SCHEMES: dict[str, dict[str, str]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A user's token, with the claim `tidegate`.",
    },
    "key": {"type": "http", "scheme": "bearer", "description": "A service's key: `tgk_`, its id, and a secret."},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-tidegate",
        "description": "A token in the cookie that `TIDEGATE_AUTH_COOKIE` names, from pages of the own site.",
    },
}
"""How a request says who asks, in the mode `token`."""

_RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}}}
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "As in RFC 6750", "schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def ref(name: str) -> dict[str, Any]:
    """The schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def responses(meanings: Mapping[int, str], schema: Mapping[str, Any], media: str = PROBLEM_JSON) -> dict[str, Any]:
    """A response for each status, by its number as text."""
    return {
        str(status): {
            "description": meaning,
            "content": {media: {"schema": schema}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status, meaning in meanings.items()
    }


def refs(statuses: Iterable[int], prefix: str = "") -> dict[str, Any]:
    """References to responses, by status. Their names are the statuses, with `prefix` before them."""
    return {str(status): {"$ref": f"#/components/responses/{prefix}{status}"} for status in sorted(statuses)}
