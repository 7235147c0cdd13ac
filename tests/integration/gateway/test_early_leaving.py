"""Clients that leave before anything has become of their request."""

import asyncio
import itertools
import random
import re
import signal
import socket
import struct
from pathlib import Path

import httpx
import pytest

from gateway.hub.endings import Ending
from gateway.sse.socket_stream import SocketStream
from tests.support.bus import broker
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.loops import Quiet, on_both_loops
from tests.support.processes import paused
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.contract.events import Event

BODY = b'{"client_id":"a","topic":["t.>"]}'
REQUESTS = {
    "fast": b"GET /api/sse?client_id=a&topic=t.%3E HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "old": b"GET /api/sse?client_id=a HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "post": b"POST /api/sse HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
}
"""The first goes the fast path, the others the portable one."""


class Leaver:
    """A client's socket, in this thread: each step is over when it returns."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def leave(self, how: str) -> None:
        """By RST, by FIN, or by the FIN of one that still reads (`half`)."""
        if how == "half":
            self.socket.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def over(running: RunningGateway) -> None:
    """Whoever left has been noticed."""
    gateway = running.gateway
    await until(lambda: not gateway.admission.active and not gateway.hub.sessions, "nobody is left")
    await until(lambda: gateway.hub.audiences == 0, "nothing is listened to")


def opened(running: RunningGateway) -> int:
    """How many streams were opened; each of them has to have an ending."""
    gateway = running.gateway
    assert sum(gateway.hub.ended.values()) == gateway.admission.total, gateway.hub.ended
    assert gateway.hub.ended["client"] == gateway.admission.total, gateway.hub.ended
    return gateway.admission.total


@pytest.mark.parametrize("name", REQUESTS)
@on_both_loops
async def test_a_client_that_leaves_at_any_turn_is_a_client_that_left(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that left while its stream was being attached was an ERROR with a stack, and counted as `feed`."""
    quiet = Quiet(caplog)
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        moments = list(itertools.product(("reset", "close", "half"), (*range(24), 40, 80)))
        for how, count in moments:
            client = Leaver(running.url)
            client.send(REQUESTS[name])
            await turns(count)
            client.leave(how)
            if how == "half":
                await until(lambda: running.gateway.hub.sessions == {}, "it has been noticed")
            client.close()
        await over(running)
        assert opened(running) <= len(moments)
        assert not any(running.gateway.admission.refused.values())
        assert quiet.lines() == []


@on_both_loops
async def test_a_client_that_leaves_within_its_head_is_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quiet, chance = Quiet(caplog), random.Random(20260101)
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        for how, request in itertools.product(("reset", "close", "half"), REQUESTS.values()):
            for _ in range(8):
                cuts = sorted(chance.sample(range(len(request)), 2))
                client = Leaver(running.url)
                for piece in (request[: cuts[0]], request[cuts[0] : cuts[1]]):
                    client.send(piece)
                    await turns(chance.randrange(8))
                client.leave(how)
                await turns(chance.randrange(8))
                client.close()
        await over(running)
        opened(running)
        assert quiet.lines() == []


@pytest.mark.parametrize("name", REQUESTS)
@on_both_loops
async def test_a_client_that_leaves_while_it_is_attached_is_not_waited_for(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """NATS hangs, so that attaching takes a while: who leaves meanwhile is gone at once, and nothing is said of it."""
    quiet = Quiet(caplog)
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        async with paused(server.run):
            for how in ("reset", "close", "half"):
                client = Leaver(running.url)
                client.send(REQUESTS[name])
                await until(lambda: running.gateway.hub.sessions, "it is being attached")
                client.leave(how)
                await until(lambda: running.gateway.hub.sessions == {}, "it is forgotten", 1)
                client.close()
        await over(running)
        assert opened(running) == 3
        assert quiet.lines() == []


@pytest.mark.parametrize("job", [False, True])
@on_both_loops
async def test_a_stream_that_nats_keeps_from_starting_was_refused(tmp_path: Path, job: bool) -> None:
    """It counted as opened, and as ended by `feed`."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url, publish_deadline_seconds=0.3) as running:
        await server.run.stop(signal.SIGKILL)
        await until(lambda: not running.bus.connected, "the gateway notices")
        path = "/api/sse/jobs/0123456789abcdef0123456789abcdef" if job else "/api/sse"
        requests: list[tuple[str, dict[str, str]]] = [("GET", {}), ("GET", {"expect": "100-continue"})]
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            for method, headers in requests + ([] if job else [("POST", {"content-type": "application/json"})]):
                content = BODY if method == "POST" else None
                answer = await client.request(method, path, headers=headers, content=content)
                assert answer.status_code == 503, answer.text
            gateway = running.gateway
            assert gateway.admission.refused["unavailable"] == len(requests) + (not job)
            assert gateway.admission.total == gateway.admission.active == 0
            assert sum(gateway.hub.ended.values()) == 0
            text = (await client.get("/metrics")).text
            assert re.search(r'tidegate_connections_refused_total\{[^}]*reason="unavailable"[^}]*\} [23]', text), text


@on_both_loops
@pytest.mark.parametrize("how", ["reset", "close", "half"])
async def test_nothing_is_written_to_who_leaves_in_a_replay(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A replay went on to the end of its page: asyncio warned of each write to a socket that was closed."""
    quiet = Quiet(caplog)
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        start = f"{(await History(bus).position()).epoch}-0"
        events = [Durable("client.a", Event("n", "x" * 4000))] * 200
        await EventPublisher(bus, History(bus)).durable_all(events, headers={})
        request = REQUESTS["fast"].replace(b"\r\n\r\n", f"\r\nLast-Event-ID: {start}\r\n\r\n".encode())
        for count in range(40):
            client = Leaver(running.url)
            client.send(request)
            await until(lambda: running.gateway.hub.sessions, "it has begun")
            await turns(count)
            client.leave(how)
            await turns(count % 3)
            client.close()
        await over(running)
        assert opened(running) == 40
        assert quiet.lines() == []


@on_both_loops
async def test_a_stream_that_is_ended_as_its_peer_leaves_is_not_written_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = Quiet(caplog)
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        clients = [Leaver(running.url) for _ in range(8)]
        for client in clients:
            client.send(REQUESTS["fast"])
        await until(lambda: len(running.gateway.hub.sessions) == 8, "they are here")
        for session in list(running.gateway.hub.sessions):
            assert isinstance(session, SocketStream)
            session.abort()
            for _ in range(3):
                running.gateway.hub.end(session, Ending.DRAIN)
                session.shutdown()
        for client in clients:
            client.close()
        await over(running)
        assert quiet.lines() == []


@on_both_loops
async def test_a_peer_that_says_goodbye_and_does_not_read_is_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transport waited for it to read what was under way, and its place was taken for as long as it did not."""
    monkeypatch.setattr(SocketStream, "linger_seconds", 0.2)
    quiet = Quiet(caplog)
    async with broker(tmp_path) as (server, bus):
        async with running_gateway(server.url, max_backlog_bytes=20_000, socket_send_bytes=4096) as running:
            client = Leaver(running.url)
            client.send(REQUESTS["fast"])
            await until(lambda: opened_now(running) == 1, "it is here")
            await EventPublisher(bus, History(bus)).durable("client.a", Event("n", "x" * 900_000), headers={})
            await until(lambda: any(session.paused for session in running.gateway.hub.sessions), "it does not read")
            client.leave("half")
            await over(running)
            client.close()
            assert opened(running) == 1
    assert quiet.lines() == []


def opened_now(running: RunningGateway) -> int:
    return running.gateway.admission.total


POSTS = {
    "/v1/chat/completions": b'{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}',
    "/api/sse/send": b'{"client_id":"a","event_type":"n","data":{"x":1}}',
    "/api/sse/broadcast": b'{"event_type":"n","data":{"x":1},"receipt":true}',
    "/api/sse/batch": b'{"client_id":"a","event_type":"n","data":1}\n' * 20,
    "/api/ai/chat": b'{"client_id":"a","prompt":"hello"}',
}


@on_both_loops
@pytest.mark.parametrize("path", POSTS)
async def test_a_caller_that_leaves_with_its_answer_under_way_is_no_fault(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    quiet, chance, body = Quiet(caplog), random.Random(20260102), POSTS[path]
    kind = "x-ndjson" if path.endswith("batch") else "json"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\nContent-Length: {len(body)}"
    request = f"{head}\r\n\r\n".encode() + body
    async with (
        broker(tmp_path) as (server, _),
        running_gateway(server.url) as running,
        running_publisher(server.url, drain_seconds=10.0) as (client, _),  # a receipt is waited for, whoever has left
    ):
        url = running.url if path.startswith("/v1") else f"http://127.0.0.1:{client.base_url.port}"
        for how, _ in itertools.product(("reset", "close", "half"), range(12)):
            leaver, cut = Leaver(url), chance.choice([len(request), chance.randrange(len(request))])
            leaver.send(request[:cut])
            await turns(chance.choice([0, 1, 2, 5, 20, 60]))
            leaver.leave(how)
            await turns(chance.randrange(4))
            leaver.close()
        await until(lambda: running.gateway.openai.admission.active == 0, "no completion is waited for")
    assert quiet.lines() == []
