"""No page of another site changes anything: the check of `Origin`, beside that of `Host`."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate_common.auth.origins import Origins
from tidegate_common.errors import Forbidden
from tidegate_common.runtime.hosts import Responder, problem
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)


class OriginCheck:
    """ASGI middleware inside the check of the host. The fast path does without: it has GETs alone."""

    def __init__(self, app: ASGIApp, origins: Origins, refusal: Responder = problem) -> None:
        self._app = app
        self._origins = origins
        self._refusal = refusal
        self._foreign = Trouble(
            log,
            "a page of another origin got 403: if it is one of yours, add its origin to TIDEGATE_CORS_ORIGINS",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._origins.check(scope["method"], scope["headers"])
            except Forbidden as error:
                self._foreign.note()
                await self._refusal(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
