"""Answers that are given while the client still sends its request: each of them has to arrive."""

import asyncio
import http.client
import socket
import urllib.error
import urllib.request

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.support.http import BODY_LIMIT, answer_in, exchange, head, send_then_read, served
from tests.support.loops import on_both_loops
from tests.support.waiting import until

LARGE = 12 << 20
JSON = "Content-Type: application/json"


def urllib_status(url: str, size: int) -> int:
    """What Python's own client makes of a POST: it sends `Connection: close`, and reads when all is sent."""
    request = urllib.request.Request(url, data=bytes(size), headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/read", 413)])
async def test_urllib_gets_each_answer_that_comes_before_its_body_is_sent(path: str, status: int) -> None:
    """The server closed with the body half read. The kernel answers the rest with a reset, and a client that has not
    read the answer by then never sees it: urllib lost 16 of 20."""
    async with served() as own:
        for _ in range(10):
            found = await asyncio.to_thread(urllib_status, f"http://127.0.0.1:{own.port}{path}", LARGE)
            assert found == status


CASES = [
    pytest.param(head("POST /nothing HTTP/1.1", "Connection: close", f"Content-Length: {LARGE}"), 404, id="404"),
    pytest.param(head("PUT /read HTTP/1.1", "Connection: close", f"Content-Length: {LARGE}"), 405, id="405"),
    pytest.param(head("POST /read HTTP/1.1", "Connection: close", f"Content-Length: {LARGE}"), 415, id="415"),
    pytest.param(head("POST /read HTTP/1.1", "Connection: close", f"Content-Length: {LARGE}", JSON), 413, id="413"),
    pytest.param(head("POST /read HTTP/1.0", f"Content-Length: {LARGE}", JSON), 413, id="HTTP/1.0"),
    pytest.param(head("POST /nothing HTTP/1.1", "X-Long: " + "x" * 40_000, f"Content-Length: {LARGE}"), 431, id="431"),
    pytest.param(b"POST /nothing HTTP/1.1\r\nHost: x\r\nX-Endless: ", 431, id="431 for a head without an end"),
    pytest.param(b"nonsense\r\n\r\n", 400, id="400 for no HTTP"),
    pytest.param(
        head("POST /read HTTP/1.1", "Transfer-Encoding: chunked", JSON) + b"no-number\r\n", 400, id="400 for no chunk"
    ),
    pytest.param(head("GET /nothing HTTP/2.0"), 505, id="505"),
    pytest.param(head("CONNECT example.com:80 HTTP/1.1"), 400, id="CONNECT"),
]


@pytest.mark.parametrize(("request_head", "status"), CASES)
@on_both_loops
async def test_a_client_that_sends_all_before_it_reads_gets_the_answer(request_head: bytes, status: int) -> None:
    """One more way to see the same loss, for each answer that the server can give early, its own parser's too."""
    async with served() as own:
        for answered in (False, "Endless" not in request_head.decode()):
            data = await asyncio.to_thread(send_then_read, own.port, request_head, LARGE, answered=answered)
            found = answer_in(data)
            assert found.status == status
            assert b"connection: close" in found.head


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_what_is_thrown_away_has_a_limit(connection: str) -> None:
    async with served() as own:
        request = head("POST /nothing HTTP/1.1", f"Connection: {connection}", f"Content-Length: {1 << 40}")
        assert await asyncio.to_thread(send_then_read, own.port, request, 80 << 20) == b""


async def test_the_rest_of_a_body_is_not_the_next_request() -> None:
    """An answer that was given early leaves the connection open; the body's rest looks like requests here."""
    async with served() as own:
        smuggled = head("POST /read HTTP/1.1", JSON, "Content-Length: 2") + b"{}"
        body = smuggled * 2000
        first = head("POST /nothing HTTP/1.1", f"Content-Length: {len(body)}")
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(first)
        assert b" 404 " in await asyncio.wait_for(reader.readline(), 5)
        writer.write(body + head("POST /read HTTP/1.1", JSON, "Content-Length: 3", "Connection: close") + b"[1]")
        rest = await asyncio.wait_for(reader.read(), 10)
        assert rest.count(b"HTTP/1.1 ") == 1
        assert rest.endswith(b"\r\n\r\n3")
        writer.close()


async def test_a_connection_that_is_kept_is_used_again_after_an_early_answer() -> None:
    async with served() as own:

        def ask() -> tuple[int, int]:
            client = http.client.HTTPConnection("127.0.0.1", own.port, timeout=20)
            client.request("POST", "/read", body=bytes(LARGE), headers={"content-type": "application/json"})
            with client.getresponse() as early:
                early.read()
            before = client.sock
            client.request("GET", "/stream")
            with client.getresponse() as later:
                later.read()
            assert client.sock is before
            client.close()
            return early.status, later.status

        assert await asyncio.to_thread(ask) == (413, 200)


CURL = [
    pytest.param((), id="keep-alive"),
    pytest.param(("--header", "Connection: close"), id="close"),
    pytest.param(("--http1.0",), id="HTTP/1.0"),
    pytest.param(("--header", "Expect:"), id="without Expect"),
    pytest.param(("--header", "Transfer-Encoding: chunked"), id="chunked"),
    pytest.param(("--header", "Connection: Upgrade, HTTP2-Settings", "--header", "Upgrade: h2c"), id="Upgrade"),
]


@pytest.mark.parametrize("more", CURL)
@pytest.mark.parametrize(("size", "status"), [(BODY_LIMIT, 200), (LARGE, 413)])
async def test_curl_gets_its_answer(more: tuple[str, ...], size: int, status: int) -> None:
    async with served() as own:
        command = ["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}", *more]
        command += ["--data-binary", "@-", "--header", JSON, f"http://127.0.0.1:{own.port}/read"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        said, errors = await asyncio.wait_for(process.communicate(bytes(size)), 30)
        assert (said, errors, process.returncode) == (str(status).encode(), b"", 0)


async def test_who_waits_for_a_100_is_told_to_go_on_or_gets_an_end() -> None:
    """Without the 100 nobody can say whether the body still comes: the connection ends with the final answer."""
    async with served() as own:
        expecting = "Expect: 100-continue", "Content-Length: 2"
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(head("POST /read HTTP/1.1", *expecting, JSON))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        told = answer_in(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n2"), 5))
        assert (told.status, b"connection: close" in told.head) == (200, False)
        writer.close()
        refused = answer_in(await exchange(own.port, head("POST /read HTTP/1.1", *expecting)))
        assert (refused.status, b"connection: close" in refused.head) == (415, True)
        old = await exchange(own.port, head("POST /read HTTP/1.0", *expecting, JSON) + b"{}")
        assert b" 100 " not in old
        assert answer_in(old).status == 200


async def test_a_bad_request_does_not_write_into_the_answer_of_the_one_before_it() -> None:
    """The refusal of a pipelined request was written at once, into the middle of the answer that was under way."""
    async with served() as own:
        said = await exchange(own.port, head("GET /stream HTTP/1.1") + b"nonsense\r\n\r\n")
        one, two = said.index(b"0\r\n\r\n"), said.index(b"HTTP/1.1 400")
        assert one < two
        assert said.count(b"HTTP/1.1 ") == 2


async def test_a_client_that_ends_is_let_go() -> None:
    async with served() as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(head("POST /nothing HTTP/1.1", "Connection: close", "Content-Length: 9"))
        assert answer_in(await asyncio.wait_for(reader.read(), 5)).status == 404
        assert own.connections == 1, "the rest of the body may still come"
        writer.close()
        await until(lambda: not own.connections, "the connection has ended")


@on_both_loops
async def test_who_reads_a_long_answer_slowly_gets_all_of_it() -> None:
    """The time after an answer is one for its reader to end, and does not begin before it has been read."""
    size = 4 << 20

    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(b"x" * size)(scope, receive, send)

    async with served(long, body_seconds=0.2) as own:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", own.port))
            await loop.sock_sendall(client, head("GET / HTTP/1.1", "Connection: close"))
            found = bytearray()
            while piece := await loop.sock_recv(client, 65_536):
                found += piece
                await asyncio.sleep(0.01)
            assert len(answer_in(bytes(found)).body) == size


@on_both_loops
async def test_a_stop_waits_for_nobody_who_has_been_answered() -> None:
    """Clients that have their answers and do not end, or have sent half a head: none of them holds a stop up."""
    async with served() as own:
        answered = head("POST /nothing HTTP/1.1", "Connection: close", "Content-Length: 9")
        drained = head("POST /nothing HTTP/1.1", "Content-Length: 9")
        writers = []
        for data in (answered, drained, head("GET /stream HTTP/1.1"), b"GET / HTTP/1.1\r\n", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
            writers.append(writer)
            writer.write(data)
            if data.endswith(b"\r\n\r\n"):
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        own.server._drain_seconds = 60
        own.server.should_exit = True
        await until(lambda: not own.connections, "all are gone", 10)
        for writer in writers:
            writer.close()
