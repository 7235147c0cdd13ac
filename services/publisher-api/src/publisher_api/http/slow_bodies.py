"""Bodies, and who sends them: what has come slowly may be somebody's who may do nothing any more."""

from __future__ import annotations

import time

from starlette.requests import Request

from tidegate_common.auth.identity import Identity
from tidegate_common.runtime.authentication import principal_of
from tidegate_common.runtime.body import read_body

SLOW_SECONDS = 0.5
"""Who asks is known before the body is read, which may take minutes. If it takes longer than this, they are looked at
again."""


class BodyReader:
    """Reads the bodies of calls."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def read(self, request: Request, limit: int, media_type: str = "application/json") -> bytes:
        """As `read_body`. Raises Unauthenticated if the sender's token or key is good no more."""
        begun = time.monotonic()
        body = await read_body(request, limit, media_type)
        if time.monotonic() - begun > SLOW_SECONDS:
            self._identity.check(principal_of(request))
        return body
