"""A gateway's problem details: which they are, and the trace that each is of."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.http import exchange
from tests.support.otlp import collector
from tests.support.waiting import until
from tests.support.ways import Way, ask_by
from tests.support.wire import ask

TRACE = "1234567890abcdef1234567890abcdef"
PARENT = f"traceparent: 00-{TRACE}-1234567890abcdef-01"
REQUESTS = [
    ("GET /api/sse?client_id=", 422),
    ("GET /api/sse/jobs/nothing", 404),
    ("GET /nowhere", 404),
    ("PUT /api/sse", 405),
    ("POST /api/sse", 415),
    ("GET /api/sse/%F6", 422),
]


@pytest.mark.parametrize(("line", "status"), REQUESTS)
@pytest.mark.parametrize("way", Way)
async def test_each_carries_the_id_of_its_trace(tmp_path: Path, way: Way, line: str, status: int) -> None:
    """publisher-api's did, the gateway's did not: whoever reported an error had nothing to find it by."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:

        async def trace(*fields: str) -> Any:
            told = await ask_by(
                way, running, "\r\n".join([f"{line} HTTP/1.1", "Host: a\r\nHost: b", *fields, "", ""]).encode()
            )
            assert told.status == 400
            assert re.fullmatch(r"[0-9a-f]{32}", told.problem["trace_id"])
            told = await ask_by(
                way, running, "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()
            )
            assert (told.status, told.field("content-type")) == (status, "application/problem+json")
            return told.problem["trace_id"]

        assert await trace(PARENT) == TRACE
        invented = {await trace(), await trace(), await trace(PARENT, PARENT), await trace("traceparent: x")}
        assert len(invented) == 4
        assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in invented)


async def test_what_never_becomes_a_request_carries_one_too(tmp_path: Path) -> None:
    """Such answers are written by the connection itself, and had no `trace_id`, though every problem is to have one."""
    many = "\r\n".join(["POST /api/sse HTTP/1.1", "Host: localhost", "Content-Length: 1", PARENT, "", ""])
    refused = {
        "GET /api/sse#part HTTP/1.1": 400,
        "GET /api/sse HTTP/2.0": 505,
        f"GET /api/sse?{'x' * 70_000} HTTP/1.1": 431,
    }
    async with broker(tmp_path) as (server, _), running_gateway(server.url, body_seconds=0.1) as running:
        for line, status in refused.items():
            told = await ask(running.url, f"{line}\r\n{PARENT}\r\n\r\n".encode())
            assert told.status == status
            assert (told.problem["trace_id"] == TRACE) is (status != 431), "its headers were not read"
            assert re.fullmatch(r"[0-9a-f]{32}", told.problem["trace_id"])
        late = await ask(running.url, many.replace("Host", "Content-Type: application/json\r\nHost").encode())
        assert (late.status, late.problem["trace_id"]) == (408, TRACE)
        first = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{PARENT}\r\n\r\n"
        said = await exchange(running.server.port, f"{first}NONSENSE\r\n\r\n".encode())
        assert b"HTTP/1.1 400" in said
        assert TRACE.encode() not in said, "that was another request's"


@pytest.mark.parametrize("way", Way)
async def test_a_refusal_within_a_span_is_of_its_trace(
    tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The span that a trace's viewer shows is the one that the answer names, also where the trace begins here."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    async with broker(tmp_path) as (server, _), collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        async with running_gateway(server.url, environ=os.environ) as running:
            request = b"GET /api/sse?client_id=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await server.run.stop()
            await until(lambda: not running.bus.connected, "the gateway has lost NATS")
            told = await ask_by(way, running, request)
            assert told.status == 503
            await until(lambda: collected.spans, "the span has come")
        assert {span.trace_id for span in collected.spans} == {told.problem["trace_id"]}


async def test_what_can_be_no_jobs_id_is_no_job(tmp_path: Path) -> None:
    """`..` is a path to the bucket's client, which refused it: the answer was 503, come back later."""
    ids = ("..", ".", "a..b", ".a", "a.", "-", "=", "A" * 32, "0" * 31, "0" * 33, "%2E%2E", "a%2Fb", "0" * 31 + "%20")
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        for job_id in ids:
            told = await ask_by(
                Way.FAST, running, f"GET /api/sse/jobs/{job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            assert (told.status, told.problem["status"]) == (404, 404), job_id
        async with httpx.AsyncClient(base_url=running.url) as client:
            assert (await client.head(f"/api/sse/jobs/{'A' * 32}")).status_code == 404
