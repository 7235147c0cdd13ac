"""Two rules of HTTP for answers that uvicorn does not keep."""

from __future__ import annotations

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
