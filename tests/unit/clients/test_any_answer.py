"""The Python client against generated answers: whatever a server or a proxy sends, only Stopped comes out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tidegate import Stopped, connect

SEEDS = range(240)
STATUSES = [
    *(
        b"200 OK",
        b"200",
        b"200 \xff\xfe",
        b"204 No",
        b"206 Part",
        b"100 Go on",
        b"101 Switch",
        b"301 Moved",
        b"304 Same",
    ),
    *(b"401 Who", b"429 Many", b"500 Broken", b"503 Full", b"600 What", b"999 What", b"20 What", b"abc", b"-1 What"),
]
FIELDS = [
    *(
        b"Content-Type: TEXT/event-STREAM; charset=x",
        b"Content-Type: text/html",
        b"Content-Type: \xff",
        b"Content-Type: ,",
    ),
    *(
        b"Content-Encoding: gzip",
        b"Content-Encoding: br, zz",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
    ),
    *(b"Content-Length: 5", b"Content-Length: -5", b"Content-Length: 99999", b"Content-Length: 1\r\nContent-Length: 2"),
    *(b"Location: /x", b"Location: ftp://x/", b"Location: http://[::1", b"Location: \xff", b"Location: //"),
    *(
        b"Retry-After: 0",
        b"Retry-After: \xff",
        b"Set-Cookie: \xff=\x01; expires=z",
        b"Set-Cookie: name=J\xc3\xb6rg; Path=/",
        b"Bad Name: x",
        b": x",
        b"X:\x00y",
    ),
    *(b"Connection: close", b"Upgrade: h2c"),
]
STREAM = b"Content-Type: text/event-stream"
PIECES = [
    *(b"data: x\n\n", b"id: e\xff\n\n", b"id: \xf0\x9f\x98\x80\ndata\n\n", b"retry: 0\n", b"retry: \xff\n", b"\r\n"),
    *(b'event: connected\ndata: {"client_id":[1]}\n\n', b'event: connected\ndata: {"client_id":"\\ud800"}\n\n'),
    *(b"event: connected\ndata: [[[\n\n", b"event: gap\ndata: \x00\n\n", b"event: closing\ndata: 1e999\n\n"),
    *(b'event: closing\ndata: {"reconnect": false}\n\n', b'{"title":1e999,"status":"x"}', b"[", b"null"),
    *(b"5\r\n", b"zz\r\n", b"0\r\n\r\n", b"\x1f\x8b\x08\x00", b"\xff\xfe"),
]


def answer(chance: random.Random) -> bytes:
    """One answer, mostly of something like a stream, sometimes cut off, sometimes noise."""
    version = chance.choice([*[b"1.1"] * 8, b"1.0", b"2", b"0.9", b"9.9"])
    status = chance.choice(STATUSES if chance.random() < 0.5 else STATUSES[:1])
    fields = [*chance.sample(FIELDS, chance.randrange(4)), *[STREAM] * (chance.random() < 0.6)]
    body = [chance.choice(PIECES) if chance.random() < 0.9 else chance.randbytes(6) for _ in range(chance.randrange(8))]
    head = b"".join(b"%s\r\n" % field for field in fields)
    made = b"HTTP/%s %s\r\n%s\r\n%s" % (version, status, head, b"".join(body))
    if chance.random() < 0.1:
        return made[: chance.randrange(len(made) + 1)]
    return chance.randbytes(40) if chance.random() < 0.05 else made


@asynccontextmanager
async def odd_server(chance: random.Random) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(chance))
        if chance.random() < 0.2:
            writer.transport.abort()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "http://127.0.0.1:%d/api/sse" % listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def outcome(seed: int) -> str:
    """How the iteration ends: by itself, or with Stopped (Refused is one); the seed and the error for all else."""
    async with odd_server(random.Random(seed)) as url, connect(url, attempts=3, random=lambda: 0) as stream:
        try:
            for _ in range(30):
                await anext(stream)
        except (Stopped, StopAsyncIteration) as end:
            return "Stopped" if isinstance(end, Stopped) else type(end).__name__
        except Exception as error:
            return f"seed {seed}: {error!r}"
    return "events"


async def test_whatever_is_answered_nothing_but_stopped_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came out of the iteration: a client's id of half a character, a redirect to a byte that is no address, and
    a cookie outside of ASCII, with each request that followed.
    """
    monkeypatch.setattr("tidegate.stream.CONNECT_SECONDS", 5.0)
    ends: set[str] = set()
    for start in range(0, len(SEEDS), 20):
        ends.update(await asyncio.gather(*map(outcome, SEEDS[start : start + 20])))
    assert {"Stopped", "StopAsyncIteration"} <= ends <= {"Stopped", "StopAsyncIteration", "events"}, ends
