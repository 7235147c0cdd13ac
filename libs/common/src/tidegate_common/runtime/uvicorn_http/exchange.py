"""One request's way through the app, by rules of HTTP that uvicorn does not keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Exchange:
    """The app, as it answers one request.

    An HTTP/1.0 client knows no chunks and no 100 (RFC 9110, 10.1.1; RFC 9112, 7.1): what has no length ends with the
    connection. A client that was not told to go on with its body may send it or not: nobody could say where the next
    request begins, so that the connection ends as well.
    """

    def __init__(self, app: Any, cycle: RequestResponseCycle, left: Callable[[], bool]) -> None:
        """`left` says whether the client has ended its own side, and then ends the connection.

        It may have gone, or wait for its answer: nobody can tell before something is written. What takes no more than
        its turn is answered. What waits on the client's account (a stream, a completion) asks whether it is there,
        once it has read the body: then it is taken for gone.
        """
        self._app = app
        self._cycle = cycle
        self._left = left
        self._whole = False
        """Whether the body has been read."""
        self._old = cycle.scope["http_version"] == "1.0"
        self._open_ended = False
        if self._old:
            cycle.waiting_for_100_continue = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        special = self._old or self._cycle.waiting_for_100_continue
        await self._app(scope, self._receive, self._send if special else send)

    async def _receive(self) -> Message:
        if self._whole:
            self._left()
        message = cast(Message, await self._cycle.receive())
        while self._whole and message["type"] == "http.request" and self._left():
            message = cast(Message, await self._cycle.receive())
        self._whole = not message.get("more_body", False)
        return message

    async def _send(self, message: Message) -> None:
        cycle = self._cycle
        if message["type"] != "http.response.start":
            if self._open_ended:
                cycle.expected_content_length = len(message.get("body", b""))
        elif self._old:
            self._open_ended = all(name.lower() != b"content-length" for name, _ in message.get("headers", []))
            if self._open_ended:
                cycle.chunked_encoding = False
        elif cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        await cycle.send(cast(Any, message))
