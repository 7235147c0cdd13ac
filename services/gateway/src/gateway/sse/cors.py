"""Requests from pages of other origins: what both ways to the socket answer them with.

The portable path has Starlette's CORSMiddleware. The fast path passes it by, and adds the same by `Cors.headers`:
tests/integration/gateway/test_two_ways_in.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

METHODS = ["GET", "POST"]
STREAM_HEADERS = [
    "authorization",
    "last-event-id",
    "content-type",
    "cache-control",
    "traceparent",
    "tracestate",
    "baggage",
]
"""What a page may send along when it asks for a stream."""
EXPOSED = ["retry-after", "www-authenticate", "x-request-id", "x-should-retry"]
"""What a page may read of an answer."""

Field = tuple[bytes, bytes]

_VARY: Field = (b"vary", b"Origin")
"""On each answer: what a cache keeps for one origin is not another's (Fetch, 3.2.5)."""


class Cors:
    """The rules for one list of `origins`; `*` stands for all, which then get no credentials (Fetch, 3.2.5)."""

    def __init__(self, origins: Sequence[str], request_headers: Sequence[str], exposed: Sequence[str] = ()) -> None:
        """`request_headers` and `exposed` come on top of those above."""
        exposed = [*EXPOSED, *exposed]
        self._origins = frozenset(origins)
        self._any = "*" in self._origins
        self.middleware = Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=METHODS,
            allow_headers=[*STREAM_HEADERS, *request_headers],
            allow_credentials=not self._any,
            expose_headers=exposed,
        )
        first = (b"access-control-allow-origin", b"*") if self._any else (b"access-control-allow-credentials", b"true")
        self._common: list[Field] = [first, (b"access-control-expose-headers", ", ".join(exposed).encode()), _VARY]

    def headers(self, asked: Iterable[Field]) -> list[Field]:
        """What the answer to a request with the headers `asked` (names in lower case) has beside its own."""
        origin = next((value for name, value in asked if name == b"origin"), None)
        if origin is None:
            return [_VARY]
        if self._any or origin.decode("latin-1") not in self._origins:
            return self._common
        return [(b"access-control-allow-origin", origin), *self._common]
