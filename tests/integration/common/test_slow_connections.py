"""Connections that send nothing, half a head or half a body: each has an end, and all together a bound."""

import asyncio
import logging
import socket
from typing import NamedTuple

import pytest
from msgspec import structs
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from gateway.settings import GatewaySettings
from tests.support.http import answer_in, exchange, head, served
from tests.support.loops import on_both_loops
from tests.support.waiting import until
from tidegate_common.runtime.environment import CommonSettings

JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
UPGRADE = "Connection: Upgrade", "Upgrade: h2c"
SHORT = 0.2


class Slow(NamedTuple):
    """What comes, and then nothing more; what is answered (0: nothing), and what it is counted as."""

    data: bytes
    status: int
    reason: str


SILENT = [
    pytest.param(Slow(b"", 0, "silent"), id="nothing"),
    pytest.param(Slow(b"\r\n", 0, "silent"), id="an empty line"),
    pytest.param(Slow(b"G", 408, "head_late"), id="one byte"),
    pytest.param(Slow(b"GET /stream HTTP/1.1\r\nHost: x\r\n", 408, "head_late"), id="half a head"),
    pytest.param(Slow(head("POST /read HTTP/1.1", JSON, "Content-Length: 9") + b"{", 408, "body_late"), id="a body"),
    pytest.param(Slow(head("POST /read HTTP/1.1", JSON, "Content-Length: 9"), 408, "body_late"), id="no body"),
    pytest.param(Slow(head("POST /read HTTP/1.0", JSON, "Content-Length: 9"), 408, "body_late"), id="HTTP/1.0"),
    pytest.param(Slow(head("POST /read HTTP/1.1", JSON, CHUNKED) + b"9\r\n{", 408, "body_late"), id="half a chunk"),
    pytest.param(
        Slow(head("POST /read HTTP/1.1", JSON, CHUNKED) + b"1\r\n{\r\n0\r\nA: b", 408, "body_late"), id="trailers"
    ),
    pytest.param(
        Slow(
            head("POST /read HTTP/1.1", JSON, "Content-Length: 9", "Connection: Upgrade", "Upgrade: h2c"),
            408,
            "body_late",
        ),
        id="an upgrade",
    ),
    pytest.param(Slow(head("POST /nothing HTTP/1.1", "Content-Length: 9"), 404, "body_late"), id="after its answer"),
]


@pytest.mark.parametrize("slow", SILENT)
@on_both_loops
async def test_what_does_not_go_on_is_told_so_and_ended(slow: Slow) -> None:
    """Such connections stayed for ever: nothing looked at how long a head or a body took."""
    async with served(head_seconds=SHORT, body_seconds=SHORT) as own:
        said = await exchange(own.port, slow.data)
        found = answer_in(said)
        assert found.status == slow.status
        if slow.status == 408:
            assert b"connection: close" in found.head
            assert b'"status": 408' in found.body
        assert own.guard.refused[slow.reason] == 1
        await until(lambda: not own.connections, "the connection is gone")
        guard = own.guard
        assert [len(one) for one in (guard.heads, guard.pieces, guard.totals, guard.idle)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("start", "drop", "status"),
    [
        pytest.param(b"GET /stream HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"x", 408, id="a head, one byte at a time"),
        pytest.param(head("POST /read HTTP/1.1", JSON, "Content-Length: 90000"), b" ", 408, id="a body, likewise"),
        pytest.param(head("POST /read HTTP/1.1", JSON, CHUNKED), b"1\r\n \r\n", 408, id="chunks of one byte"),
    ],
)
async def test_drops_do_not_buy_time(start: bytes, drop: bytes, status: int) -> None:
    async with served(head_seconds=0.3, body_seconds=0.3) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(start)
        said = asyncio.create_task(reader.read())
        while not said.done():
            writer.write(drop)
            await asyncio.wait([said], timeout=0.02)
        assert answer_in(await said).status == status
        writer.close()


async def test_a_body_that_keeps_its_pace_may_take_longer_than_one_piece_has() -> None:
    async with served(body_seconds=0.5) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(head("POST /nothing HTTP/1.1", f"Content-Length: {40 * 65_536}"))
        for _ in range(40):
            writer.write(bytes(65_536))
            await asyncio.sleep(0.02)
        writer.write(head("GET /stream HTTP/1.1", "Connection: close"))
        said = await asyncio.wait_for(reader.read(), 5)
        assert (answer_in(said).status, said.count(b"HTTP/1.1 200")) == (404, 1)
        writer.close()


async def test_ten_minutes_in_all_hold_for_a_body_that_keeps_its_pace() -> None:
    async with served(body_seconds=5, body_total_seconds=0.3) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(head("POST /read HTTP/1.1", JSON, "Content-Length: 90000"))
        assert answer_in(await asyncio.wait_for(reader.read(), 5)).status == 408
        writer.close()


async def test_ten_minutes_in_all_hold_for_what_is_thrown_away() -> None:
    async with served(body_seconds=60, body_total_seconds=0.3) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(head("POST /nothing HTTP/1.1", "Content-Length: 90000", "Connection: close"))
        assert answer_in(await asyncio.wait_for(reader.read(), 5)).status == 404
        await until(lambda: not own.connections, "the rest is not waited for")
        writer.close()


async def test_a_connection_that_is_kept_has_a_time_for_its_next_head_from_the_first_byte_on() -> None:
    async with served(head_seconds=SHORT, keep_alive_seconds=30) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        for _ in range(2):
            writer.write(head("GET /stream HTTP/1.1"))
            await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
            await until(lambda: len(own.guard.idle) == 1, "the connection is idle")
            assert len(own.guard.heads) == 0
        writer.write(b"GET")
        assert answer_in(await asyncio.wait_for(reader.read(), 5)).status == 408
        writer.close()


async def test_a_connection_that_is_kept_ends_after_its_time_whatever_came_last() -> None:
    """A body's rest that came after its answer, or an empty line, took the time away that a kept connection has."""
    early = head("POST /nothing HTTP/1.1", "Content-Length: 2")
    for last in (head("GET /stream HTTP/1.1"), head("GET /stream HTTP/1.1") + b"\r\n"):
        async with served(keep_alive_seconds=SHORT) as own:
            assert answer_in(await exchange(own.port, last)).status == 200
    async with served(keep_alive_seconds=SHORT) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(early)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"{}")
        await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_an_answer_that_takes_its_time_is_not_cut() -> None:
    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3 * SHORT)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(slowly, head_seconds=SHORT, body_seconds=SHORT, keep_alive_seconds=SHORT) as own:
        assert answer_in(await exchange(own.port, head("GET / HTTP/1.1"))).status == 204


async def test_sockets_have_a_limit_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidegate_common")
    async with served(sockets=10) as own:
        kept = [await asyncio.open_connection("127.0.0.1", own.port) for _ in range(10)]
        await until(lambda: own.connections == 10, "all are there")
        for _ in range(5):
            assert await exchange(own.port, b"") == b""
        assert own.guard.refused["sockets"] == 5
        for _, writer in kept[:5]:
            writer.close()
        await until(lambda: own.connections == 5, "half of them are gone")
        request = head("GET /stream HTTP/1.1", "Connection: close")
        assert answer_in(await exchange(own.port, request)).status == 200
        for _, writer in kept[5:]:
            writer.close()
    said = [record.levelname for record in caplog.records if record.name.endswith("guard")]
    assert said == ["WARNING", "INFO"]


async def test_half_read_bodies_have_a_bound_together_that_whole_ones_do_not_meet() -> None:
    """Forty halves of 8 MiB took a process from 50 to 376 MiB: each was within its own limit."""
    async with served(bodies_bytes=150_000) as own:
        halves = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
            writer.write(head("POST /read HTTP/1.1", JSON, "Content-Length: 80000") + b" " * 70_000)
            halves.append((reader, writer))
        await until(lambda: own.guard.bodies.held == 140_000, "the halves are there")
        large = head("POST /read HTTP/1.1", JSON, "Content-Length: 80000", "Connection: close")
        refused = answer_in(await exchange(own.port, large + b" " * 70_000))
        assert (refused.status, b"\r\nretry-after: " in refused.head) == (503, True)
        over = head("POST /read HTTP/1.1", JSON, "Content-Length: 200000", "Connection: close")
        assert answer_in(await exchange(own.port, over)).status == 413
        small = head("POST /read HTTP/1.1", JSON, "Content-Length: 2", "Connection: close")
        assert answer_in(await exchange(own.port, small + b"{}")).status == 200
        one, other = halves
        one[1].close()
        other[1].write(b" " * 10_000)
        assert answer_in(await asyncio.wait_for(other[0].readuntil(b"80000"), 5)).status == 200
        other[1].close()
        await until(lambda: own.guard.bodies.held == 0, "nothing is held any more")


async def test_requests_that_wait_on_one_connection_have_a_limit() -> None:
    """Each request of 18 bytes that waits for another's answer holds kilobytes."""
    async with served() as own:
        said = await exchange(own.port, head("GET /stream HTTP/1.1") * 1000)
        assert said.count(b"HTTP/1.1 200") == 65
        assert answer_in(said[said.rindex(b"HTTP/1.1 ") :]).status == 429


async def test_trailers_are_bounded_and_no_headers() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(look, head_bytes=2000) as own:
        chunks = head("POST / HTTP/1.1", CHUNKED, "Connection: close") + b"1\r\nx\r\n0\r\n"
        assert answer_in(await exchange(own.port, chunks + b"X-Trailer: 1\r\n\r\n")).status == 204
        assert all(name != b"x-trailer" for name, _ in seen[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(chunks + b"X-Trailer: ")
        said = asyncio.create_task(reader.read())
        while not said.done():
            writer.write(b"x" * 100)
            await asyncio.wait([said], timeout=0.01)
        assert answer_in(await said).status == 431
        writer.close()
        many = chunks + b"X-Trailer: 1\r\n" * 400
        assert answer_in(await exchange(own.port, many)).status == 431


async def test_a_head_that_waits_behind_answers_is_not_late() -> None:
    """The server itself reads no further while requests wait: the rest of a later head may be there, unread."""
    gate = asyncio.Event()

    async def gated(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(gated, head_seconds=SHORT, body_seconds=SHORT) as own:
        one = head("GET / HTTP/1.1")
        exchanged = asyncio.create_task(
            exchange(own.port, one + one + one[:9], one[9:-2] + b"Connection: close\r\n\r\n")
        )
        await asyncio.sleep(3 * SHORT)
        gate.set()
        assert (await exchanged).count(b"HTTP/1.1 204") == 3


async def test_the_rest_of_a_head_that_waited_behind_answers_has_its_whole_time() -> None:
    gate = asyncio.Event()

    async def gated(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(gated, head_seconds=1.5) as own:
        one = head("GET / HTTP/1.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(one + one + one[:9])
        await asyncio.sleep(1)
        gate.set()
        await asyncio.sleep(1)
        writer.write(one[9:-2] + b"Connection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).count(b"HTTP/1.1 204") == 3
        writer.close()


async def test_each_head_has_a_time_of_its_own_though_it_begins_in_the_segment_that_ends_another() -> None:
    one = head("GET /stream HTTP/1.1")
    async with served(head_seconds=1.5) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(one[:9])
        for _ in range(4):
            await asyncio.sleep(0.5)
            writer.write(one[9:] + one[:9])
        writer.write(one[9:-2] + b"Connection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).count(b"HTTP/1.1 200") == 5
        writer.close()


async def test_a_body_that_its_service_does_not_read_yet_is_not_late() -> None:
    """The server reads no further while nobody takes what there is of a body: its client has sent all of it."""
    size = 300_000

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(4 * SHORT)
        read = 0
        while True:
            message = await receive()
            read += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200 if read == size else 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(waiting, body_seconds=SHORT) as own:
        request = head("POST / HTTP/1.1", f"Content-Length: {size}", "Connection: close") + bytes(size)
        assert answer_in(await exchange(own.port, request)).status == 200


@on_both_loops
async def test_one_that_does_not_read_its_answer_is_no_connection_for_ever() -> None:
    """Its time for another request ended, and the closing waited for it to read what was left."""

    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(b"x" * (16 << 20))(scope, receive, send)

    async with served(long, keep_alive_seconds=SHORT, body_seconds=SHORT) as own:
        with socket.create_connection(("127.0.0.1", own.port)) as client:
            client.sendall(head("GET / HTTP/1.1"))
            await until(lambda: len(own.guard.idle) == 1, "it has its answer, in part")
            await until(lambda: not own.connections, "it is let go")


async def test_what_the_settings_say_is_what_holds() -> None:
    limits = CommonSettings().http_limits()
    assert (limits.keep_alive_seconds, limits.head_seconds, limits.body_seconds) == (75, 10, 30)
    assert (limits.body_total_seconds, limits.sockets, limits.bodies_bytes) == (600, 4096, 64 << 20)
    assert GatewaySettings(max_connections=50).http_limits().sockets == 1050
    assert GatewaySettings(max_sockets=60).http_limits().sockets == 60
    async with served(**structs.asdict(limits)) as own:
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(head("GET /stream HTTP/1.1"))
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        await until(lambda: len(own.guard.idle) == 1, "the connection is kept")
        assert own.guard.idle.seconds == 75
        writer.close()
