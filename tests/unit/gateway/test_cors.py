"""What the fast path adds to an answer for pages of other origins is what Starlette's middleware adds."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from gateway.sse.cors import Cors

OWN = [(b"content-type", b"text/event-stream")]
ORIGINS = [b"https://app.example", b"https://other.example", b"https://APP.example", b"null", b"", b"*", b"\xc3\xb6"]
CONFIGURED = [(), ("*",), ("https://app.example",), ("https://app.example", "https://other.example"), ("null",)]


async def answer(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(OWN)})


def by_starlette(cors: Cors, asked: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of `answer` to a GET with the headers `asked`."""
    told: list[Message] = []

    async def send(message: Message) -> None:
        told.append(message)

    async def receive() -> Message:
        raise AssertionError("nobody asks for it")

    made = cors.middleware.cls(answer, *cors.middleware.args, **cors.middleware.kwargs)

    async def run() -> None:
        await made({"type": "http", "method": "GET", "headers": asked}, receive, send)

    asyncio.run(run())
    return list(told[0]["headers"])


@pytest.mark.parametrize("configured", CONFIGURED)
@given(named=st.lists(st.sampled_from(ORIGINS), max_size=2), other=st.booleans())
def test_the_headers_are_the_middlewares(configured: tuple[str, ...], named: list[bytes], other: bool) -> None:
    cors = Cors(configured, ["x-more"])
    asked = [(b"host", b"localhost")] * other + [(b"origin", origin) for origin in named]
    assert sorted(OWN + cors.headers(asked)) == sorted(by_starlette(cors, asked))
