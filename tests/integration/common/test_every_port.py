"""What holds of a connection holds on the port of every service: here they are processes, as they are shipped."""

import asyncio
import os
import select
import socket
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.bus import broker
from tests.support.http import answer_in, exchange, head, send_then_read
from tests.support.ports import free_port
from tests.support.processes import service

LARGE = 12 << 20
JSON = "Content-Type: application/json"
CLOSE = "Connection: close"
LENGTH = f"Content-Length: {LARGE}"


class Early(NamedTuple):
    """A request that is answered before its body has come, and the answer's status."""

    line: str
    status: int
    headers: tuple[str, ...] = (JSON, LENGTH)


EVERYWHERE = [
    Early("POST /nothing HTTP/1.1", 404),
    Early("POST /healthz HTTP/1.1", 405),
    Early("POST /healthz HTTP/1.0", 405),
    Early("POST /healthz HTTP/1.1", 431, ("X-Long: " + "x" * 40_000, LENGTH)),
    Early("POST /healthz HTTP/1.1", 400, ("Content-Length: none",)),
    Early("POST /healthz HTTP/1.1", 400, (LENGTH, "Host: twice")),
]

SERVICES = {
    "gateway": [
        Early("POST /api/sse HTTP/1.1", 413),
        Early("POST /api/sse HTTP/1.1", 415, (LENGTH,)),
        Early("PUT /api/sse HTTP/1.1", 405),
        Early("DELETE /api/sse/jobs/a HTTP/1.1", 405),
        Early("POST / HTTP/1.1", 405),
        Early("POST /v1/chat/completions HTTP/1.1", 413),
        Early("POST /v1/chat/completions HTTP/1.0", 413),
        Early("POST /v1/chat/completions HTTP/1.1", 415, (LENGTH,)),
        Early("POST /v1/chat/completions HTTP/1.1", 413, (JSON, "Transfer-Encoding: chunked")),
        Early("GET /api/sse?client_id=%00 HTTP/1.1", 422, ()),
        Early("GET /api/sse?client_id=%00 HTTP/1.1", 422, (LENGTH,)),
    ],
    "publisher_api": [
        Early("POST /api/sse/send HTTP/1.1", 413),
        Early("POST /api/sse/send HTTP/1.0", 413),
        Early("POST /api/sse/send HTTP/1.1", 415, (LENGTH,)),
        Early("POST /api/sse/broadcast HTTP/1.1", 413),
        Early("POST /api/sse/batch HTTP/1.1", 413, ("Content-Type: application/x-ndjson", LENGTH)),
        Early("POST /api/sse/batch HTTP/1.1", 415),
        Early("POST /api/ai/chat HTTP/1.1", 413),
        Early("PUT /api/sse/send HTTP/1.1", 405),
        Early("POST /api/sse/send HTTP/1.1", 422, (JSON, LENGTH, "Idempotency-Key: not\tvisible")),
    ],
    "ai_worker": [],
}


@pytest.mark.parametrize("module", SERVICES)
async def test_an_early_answer_arrives(module: str, tmp_path: Path) -> None:
    """A proxy made 502 of it, and Python's own client a broken pipe: the connection was closed with bytes unread."""
    async with broker(tmp_path) as (nats, _):
        port = free_port()
        async with service(module, port, {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_AI_BACKEND": "scripted"}):
            chunks = b"FFFFFFF\r\n"
            for early in [*EVERYWHERE, *SERVICES[module]]:
                request = head(early.line, CLOSE, *early.headers)
                request += chunks if "Transfer-Encoding: chunked" in early.headers else b""
                answered = request[-4:] == b"\r\n\r\n"
                said = await asyncio.to_thread(send_then_read, port, request, LARGE, answered=answered)
                found = answer_in(said)
                assert found.status == early.status, early
                assert b"\r\nconnection: close" in found.head, early


@pytest.mark.parametrize("module", SERVICES)
async def test_sockets_heads_and_bodies_have_their_limits(module: str, tmp_path: Path) -> None:
    """Sockets that sent nothing, half a head or half a body stayed for ever, on all three ports."""
    limits = {
        "TIDEGATE_HEAD_SECONDS": "0.5",
        "TIDEGATE_BODY_SECONDS": "0.5",
        "TIDEGATE_KEEP_ALIVE_SECONDS": "0.5",
        "TIDEGATE_MAX_SOCKETS": "12",
    }
    async with broker(tmp_path) as (nats, _):
        port = free_port()
        env = {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_AI_BACKEND": "scripted", **limits}
        async with service(module, port, env), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            body = head("POST /nothing HTTP/1.1", JSON, "Content-Length: 9") + b"{"
            slow = [b"", b"GET /api/sse HTTP/1.1\r\n", body, head("GET /healthz HTTP/1.1")]
            said = await asyncio.gather(*(exchange(port, data) for data in slow))
            assert [answer_in(one).status for one in said] == [0, 408, 404, 200]
            kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
            over = await exchange(port, b"", seconds=0.3)
            assert over == b"", "the one over the limit is closed before its time"
            for _, writer in kept:
                writer.close()
            metrics = (await client.get("/metrics")).text
    for reason in ("silent", "head_late", "body_late", "sockets"):
        named = (line for line in metrics.splitlines() if line.startswith("tidegate_http_refused_total{"))
        (line,) = (line for line in named if f'reason="{reason}"' in line)
        assert float(line.split()[-1]) >= 1, line


def half_a_batch(port: int, kept: list[socket.socket]) -> int:
    """Sends almost 8 MiB of a batch on a connection of its own, one more of `kept`. Gives the status, 0 for none."""
    own = socket.create_connection(("127.0.0.1", port), timeout=20)
    kept.append(own)
    own.sendall(
        head("POST /api/sse/batch HTTP/1.1", "Content-Type: application/x-ndjson", f"Content-Length: {8 << 20}")
    )
    for _ in range(63):
        own.sendall(bytes(131_072))
    ready, _, _ = select.select([own], [], [], 1)
    return answer_in(own.recv(65_536)).status if ready else 0


async def test_half_read_bodies_together_stay_within_their_bound(tmp_path: Path) -> None:
    """Forty of them took publisher-api from 50 to 376 MiB."""
    async with broker(tmp_path) as (nats, _):
        port = free_port()
        async with service("publisher_api", port, {"TIDEGATE_NATS_URL": nats.url}) as run:
            kept: list[socket.socket] = []
            before = resident_mib(run.process.pid)
            found = [await asyncio.to_thread(half_a_batch, port, kept) for _ in range(40)]
            grown = resident_mib(run.process.pid) - before
            for own in kept:
                own.close()
    assert found[:8] == [0] * 8
    assert set(found[8:]) == {503}
    assert grown < 100


def resident_mib(pid: int) -> float:
    """What a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def test_an_open_stream_has_no_time_limit_and_its_client_may_send(tmp_path: Path) -> None:
    """Neither way into a stream leaves a time for heads or bodies behind, whatever the client has not sent."""
    env = {"TIDEGATE_HEAD_SECONDS": "0.3", "TIDEGATE_BODY_SECONDS": "0.3", "TIDEGATE_HEARTBEAT_SECONDS": "0.3"}
    async with broker(tmp_path) as (nats, _):
        port = free_port()
        async with service("gateway", port, {"TIDEGATE_NATS_URL": nats.url, **env}) as run:
            for more in ((), ("Content-Length: 9",)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head("GET /api/sse HTTP/1.1", *more))
                for _ in range(4):
                    await asyncio.wait_for(reader.readuntil(b": heartbeat"), 5)
                writer.close()
            assert not run.said("ERROR")
