"""Paths whose bytes are no text."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate_common.errors import InvalidField
from tidegate_common.runtime.hosts import Responder, problem


class Utf8Paths:
    """Refuses a path that is not UTF-8: servers read its bytes as U+FFFD, so that two names would be one."""

    def __init__(self, app: ASGIApp, refusal: Responder = problem) -> None:
        self._app = app
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The character itself may stand in a name: its own bytes are UTF-8.
        if scope["type"] == "http" and "\ufffd" in scope["path"] and not _is_utf8(scope["raw_path"]):
            await self._refusal(scope, InvalidField("path", "percent-encoded UTF-8"))(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_utf8(raw: bytes) -> bool:
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True
