"""Whether the sender of a request is still there: asked only if something is waited for on their account."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate_common.bus.streams.patience import WAITER


class AsgiCaller:
    """The sender of a request that came by way of ASGI, who counts what is received of its body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watching: asyncio.Future[Any] | None = None
        self.size = 0

    async def receive(self) -> Message:
        """As ASGI has it."""
        message = await self._receive()
        self.size += len(message.get("body", b""))
        return message

    def gone(self) -> asyncio.Future[Any]:
        """Reads what comes: the body has been read before."""
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._left())
        return self._watching

    def let_go(self) -> None:
        """Watches no more."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def attended(app: ASGIApp) -> ASGIApp:
    """`app`, in which no request waits for NATS when its sender has gone."""

    async def attend(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        caller = AsgiCaller(receive)
        token = WAITER.set(caller)
        try:
            await app(scope, caller.receive, send)
        finally:
            WAITER.reset(token)
            caller.let_go()

    return attend
