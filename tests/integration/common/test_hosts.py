"""A page of another name reaches none of the services, by no way in."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.ports import free_port
from tests.support.processes import running, service
from tests.support.publisher import running_publisher

GATEWAY = ["/api/sse?client_id=a", "/api/sse/jobs/none", "/v1/models", "/", "/metrics", "/nothing"]
PUBLISHER = ["/metrics", "/docs", "/openapi.json", "/api/ai/dead", "/api/ai/jobs/none", "/nothing"]
WORKER = ["/metrics", "/nothing"]


class Answer(NamedTuple):
    status: int
    text: str


async def ask(port: int, request: bytes) -> Answer:
    """What comes first of the answer to `request`, with what of its body comes along."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read(4096) if b"content-length: 0" not in head.lower() else b""
        return Answer(int(head.split()[1]), (head + body).decode("utf-8", "replace"))
    finally:
        writer.transport.abort()


def get(path: str, *lines: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode()


def host(name: str, path: str, *lines: str) -> bytes:
    return get(path, f"Host: {name}", *lines)


@asynccontextmanager
async def everything(data: Path) -> AsyncIterator[list[tuple[int, list[str]]]]:
    """The ports of all services, both kinds of gateway among them, and what to ask each for."""
    allowed = ("edge.example",)
    async with (
        broker(data) as (server, _),
        running_gateway(server.url, allowed_hosts=allowed) as slim,
        running_gateway(server.url, allowed_hosts=allowed, streams="plain") as plain,
        running_publisher(server.url, allowed_hosts=allowed) as (client, _),
    ):
        port = free_port()
        env = {
            "TIDEGATE_NATS_URL": server.url,
            "TIDEGATE_AI_BACKEND": "scripted",
            "TIDEGATE_ALLOWED_HOSTS": allowed[0],
        }
        async with service("ai_worker", port, env):
            gateways = [int(found.url.rpartition(":")[2]) for found in (slim, plain)]
            api = client.base_url.port
            assert api is not None
            yield [*((found, GATEWAY) for found in gateways), (api, PUBLISHER), (port, WORKER)]


async def test_a_page_of_a_rebound_name_gets_nothing(tmp_path: Path) -> None:
    """A page of http://evil.example:8001 lets its name lead to 127.0.0.1: the service is then its own origin.

    It published, and read the dead jobs, without any preflight.
    """
    async with everything(tmp_path) as ports:
        for port, paths in ports:
            origin = f"Origin: http://evil.example:{port}"
            for path in paths:
                found = await ask(port, host(f"evil.example:{port}", path, origin))
                assert found.status == 421, (path, found)
                assert "TIDEGATE_ALLOWED_HOSTS" in found.text
                assert "access-control-allow-origin" not in found.text.lower()
                shape = '"code":"wrong_host"' if path.startswith("/v1") else "urn:tidegate:problem:wrong-host"
                assert shape in found.text
            for path, body in (
                ("/api/sse/send", b'{"client_id":"a","event_type":"n","data":1}'),
                ("/api/sse", b'{"client_id":"a"}'),
                ("/v1/chat/completions", b"{}"),
            ):
                lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
                head = get(path, f"Host: evil.example:{port}", origin, *lines, method="POST")
                assert (await ask(port, head + body)).status == 421
            preflight = ("Access-Control-Request-Method: POST", origin)
            head = get(paths[0], "Host: evil.example", *preflight, method="OPTIONS")
            assert (await ask(port, head)).status == 421


async def test_every_way_in_reads_a_host_alike(tmp_path: Path) -> None:
    expected: list[tuple[int | None, tuple[str, ...]]] = [
        (None, ("Host: localhost",)),
        (None, ("Host: LocalHost.:1",)),
        (None, ("Host: 127.0.0.1:99999",)),
        (None, ("host: 203.0.113.7",)),
        (None, ("Host: [::1]:8000",)),
        (None, ("Host: [2001:db8::1]",)),
        (None, ("Host: EDGE.example.",)),
        (None, ("Host: edge.example:",)),
        (421, ("Host: evil.example",)),
        (421, ("Host: edge.example.evil.example",)),
        (421, ("Host: localhost.evil.example:80",)),
        (421, ("Host: x.localhost",)),
        (421, ("Host: 127.0.0.1.evil.example",)),
        (421, ("Host: 2130706433",)),
        (400, ("Host: localhost", "Host: localhost")),
        (400, ("Host: localhost", "Accept: */*", "HOST: evil.example")),
        (400, ()),
        (400, ("Host:",)),
        (400, ("Host: user@localhost",)),
        (400, ("Host: localhost:80a",)),
        (400, ("Host: [localhost]",)),
        (400, ("Host: localhost/evil",)),
        (400, ("Host: evil.example localhost",)),
    ]
    async with everything(tmp_path) as ports:
        for (port, paths), (status, lines) in itertools.product(ports, expected):
            for path in paths:
                found = await ask(port, get(path, *lines))
                assert found.status == (status or found.status), (path, lines, found)
                assert status is not None or found.status not in (400, 421), (path, lines, found)
            for path in ("/healthz", "/readyz"):
                missing = len([line for line in lines if line.lower().startswith("host")]) != 1
                assert (await ask(port, get(path, *lines))).status == (400 if missing else 200), (path, lines)
        for port, paths in ports:
            old = get("/metrics", version="1.0")
            assert (await ask(port, old)).status == 200, "HTTP/1.0 need not say a host"
            assert (await ask(port, get("/metrics", "Host: evil.example", version="1.0"))).status == 421
            for path in paths:
                # RFC 9112 3.2.2: of an absolute-form target the host counts, whatever the header says.
                assert (await ask(port, host("localhost", f"http://evil.example{path}"))).status == 421
                assert (await ask(port, host("evil.example", f"http://localhost:1{path}"))).status not in (400, 421)
                assert (await ask(port, host("localhost", f"http://a@localhost{path}"))).status == 400
            assert (await ask(port, host("evil.example", "http://localhost/healthz"))).status == 200
            assert (await ask(port, host("localhost", "http://evil.example"))).status == 421


async def test_names_that_are_none_are_said_at_the_start() -> None:
    env = {"TIDEGATE_ALLOWED_HOSTS": "good.example, https://a.example, b.example:80, *.c.example"}
    async with running(sys.executable, "-m", "publisher_api", env=env) as run:
        assert await run.process.wait() == 2
        await run.stop()
        assert [line.split()[2] for line in run.output] == ["https://a.example", "b.example:80", "*.c.example"]


@pytest.mark.parametrize("head", [("Host: localhost",), ("Host: localhost", "Origin: http://localhost:3000")])
async def test_a_pipelined_request_is_asked_for_its_own_host(tmp_path: Path, head: tuple[str, ...]) -> None:
    """A first request for an allowed host opens no way for the second."""
    async with everything(tmp_path) as ports:
        for port, _ in ports:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            second = get("/metrics", "Host: evil.example", "Connection: close")
            writer.write(get("/nothing", *head) + second)
            async with asyncio.timeout(10):
                text = (await reader.read(-1)).decode()
            writer.transport.abort()
            assert text.count("HTTP/1.1 404") == 1
            assert text.count("HTTP/1.1 421") == 1
