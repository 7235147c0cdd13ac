"""Clients that end their own side once they have sent their request, and read on."""

import asyncio
import itertools
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.support.bus import broker
from tests.support.http import Answer, answer_in, head, served
from tests.support.loops import on_both_loops
from tests.support.publisher import running_publisher
from tests.support.waiting import until

SHORT = 0.2
JSON = "Content-Type: application/json"


async def late(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was sent, some turns after the client's end has come."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await asyncio.sleep(SHORT)
    await PlainTextResponse(body or b"nothing")(scope, receive, send)


async def half_closed(port: int, *pieces: bytes) -> bytes:
    """All that comes back to one that ends its side right behind `pieces`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


GET = head("GET / HTTP/1.1")
WHOLE = [
    pytest.param(GET, [b"nothing"], id="a GET"),
    pytest.param(head("GET / HTTP/1.0"), [b"nothing"], id="HTTP/1.0"),
    pytest.param(head("POST / HTTP/1.1", "Content-Length: 2") + b"{}", [b"{}"], id="a POST"),
    pytest.param(head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n", [b"{}"], id="chunks"),
    pytest.param(GET * 3, [b"nothing"] * 3, id="three in a row"),
    pytest.param(GET + b"GET / HT", [b"nothing"], id="half a head behind it"),
    pytest.param(GET + b"nonsense\r\n\r\n", [b"nothing", b"400"], id="no HTTP behind it"),
]


@pytest.mark.parametrize(("data", "answers"), WHOLE)
@on_both_loops
async def test_what_is_there_as_a_whole_is_answered(data: bytes, answers: list[bytes]) -> None:
    """`nc -N` and `socat` end their side with the request. The server took that for leaving and closed, so that each
    answer that took a moment was lost."""
    async with served(late, head_seconds=SHORT, body_seconds=SHORT) as own:
        said = await half_closed(own.port, data)
        assert said.count(b"HTTP/1.1 ") == len(answers)
        assert all(answer in said for answer in answers)
        await until(lambda: not own.connections, "the connection is gone")
        guard = own.guard
        assert [len(one) for one in (guard.heads, guard.pieces, guard.totals, guard.idle)] == [0, 0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.booleans()), min_size=1, max_size=5),
    st.lists(st.integers(0, 300_000), max_size=4),
)
async def test_each_of_several_gets_its_answer_however_they_are_cut(
    asked: list[tuple[int, bool]], cuts: list[int]
) -> None:
    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        read = 0
        while (message := await receive())["type"] == "http.request":
            read += len(message["body"])
            if not message["more_body"]:
                break
        await asyncio.sleep(0.001 if scope["path"] == "/late" else 0)
        await PlainTextResponse(f"[{read}]")(scope, receive, send)

    async with served(told) as own:
        data = b"".join(
            head(f"POST /{'late' if late else 'now'} HTTP/1.1", f"Content-Length: {size}") + bytes(size)
            for size, late in asked
        )
        at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        said = await half_closed(own.port, *(data[one:other] for one, other in itertools.pairwise(at)))
        assert re.findall(rb"\[(\d+)\]", said) == [str(size).encode() for size, _ in asked]


@on_both_loops
async def test_half_a_request_gets_no_answer_and_is_no_connection_any_more() -> None:
    async with served(late) as own:
        for data in (b"", b"GET / HT", head("POST / HTTP/1.1", "Content-Length: 9") + b"{"):
            assert await half_closed(own.port, data) == b""
        await until(lambda: not own.connections, "all are gone")


@on_both_loops
async def test_who_waits_on_the_clients_account_hears_that_it_has_gone() -> None:
    """It can't be told from one that has gone: no stream is kept, and no model asked, for such a one."""
    told: list[str] = []

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(SHORT if scope["path"] == "/later" else 0)
        while (await receive())["type"] != "http.disconnect":
            pass
        told.append(scope["path"])

    async with served(wait) as own:
        for path in ("/now", "/later"):
            assert await half_closed(own.port, head(f"GET {path} HTTP/1.1")) == b""
        await until(lambda: told == ["/now", "/later"], "both were told")
        await until(lambda: not own.connections, "the connections are gone")


@on_both_loops
async def test_one_that_does_not_read_its_answer_is_let_go() -> None:
    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(SHORT)
        await PlainTextResponse(b"x" * (16 << 20))(scope, receive, send)

    async with served(long, body_seconds=SHORT) as own:
        with socket.create_connection(("127.0.0.1", own.port)) as client:
            client.sendall(GET)
            client.shutdown(socket.SHUT_WR)
            await until(lambda: own.connections == 1, "it is here")
            await until(lambda: not own.connections, "it is let go")


POSTS = {
    "/api/sse/send": b'{"client_id":"a","event_type":"n","data":{"x":1}}',
    "/api/sse/broadcast": b'{"event_type":"n","data":{"x":1},"receipt":true}',
    "/api/sse/batch": b'{"client_id":"a","event_type":"n","data":1}\n' * 20,
    "/api/ai/chat": b'{"client_id":"a","prompt":"hello"}',
}


async def test_publisher_api_answers_each_of_its_posts(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        for path, body in POSTS.items():
            kind = "Content-Type: application/x-ndjson" if path.endswith("batch") else JSON
            request = head(f"POST {path} HTTP/1.1", kind, f"Content-Length: {len(body)}") + body
            found: Answer = answer_in(await half_closed(client.base_url.port or 0, request))
            assert found.status in (200, 202), (path, found)
