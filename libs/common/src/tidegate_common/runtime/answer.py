"""Rules of HTTP for answers that uvicorn does not keep."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def by_the_rules(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """`app` as the client of `cycle` has to be answered: itself, where nothing is special.

    An HTTP/1.0 client knows no chunks and no 100 (RFC 9110, 10.1.1; RFC 9112, 7.1): what has no length ends with the
    connection. One that was not told to go on with its body may send it or not: nobody could say where the next
    request begins, so that the connection ends as well.
    """
    if cycle.scope["http_version"] == "1.0":
        cycle.waiting_for_100_continue = False
        return _by_the_end(app, cycle)
    if cycle.waiting_for_100_continue:
        return _without_its_body(app, cycle)
    return app


def until_left(app: ASGIApp, left: Callable[[], bool]) -> ASGIApp:
    """`app`, which hears that its client has gone once `left` says so: if it asks, after it has read the body.

    A client that has ended its own side may be one that has gone, or wait for its answer. Nobody can tell before
    something is written. What takes no more than its turn is answered; what waits on the client's account (a stream,
    a completion) takes it for gone.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        whole = False

        async def watched() -> Message:
            nonlocal whole
            if whole:
                left()
            message = await receive()
            while whole and message["type"] == "http.request" and left():
                message = await receive()
            whole = not message.get("more_body", False)
            return message

        await app(scope, watched, send)

    return answer


def _by_the_end(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        open_ended = False

        async def forward(message: Message) -> None:
            nonlocal open_ended
            if message["type"] == "http.response.start":
                open_ended = all(name.lower() != b"content-length" for name, _ in message.get("headers", []))
                if open_ended:
                    cycle.chunked_encoding = False
            elif open_ended:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, forward)

    return answer


def _without_its_body(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def forward(message: Message) -> None:
            if message["type"] == "http.response.start" and cycle.waiting_for_100_continue:
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, forward)

    return answer
