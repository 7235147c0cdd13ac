"""Compressed bodies on every endpoint that reads one, of both services."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.publisher import running_publisher

JSON = "application/json"
PUBLISHER = [
    ("/api/sse/send", JSON),
    ("/api/sse/broadcast", JSON),
    ("/api/sse/batch", "application/x-ndjson"),
    ("/api/ai/chat", JSON),
    ("/api/ai/jobs", JSON),
    ("/api/ai/dead/{job_id}/retry", JSON),
]
GATEWAY = [("/api/sse", JSON), ("/v1/chat/completions", JSON)]


def refused(answer: httpx.Response, coding: str) -> None:
    """RFC 9110, 15.5.16: the answer says what would have been taken."""
    assert answer.status_code == 415, answer.text
    assert answer.headers["accept-encoding"] == "identity"
    assert f"Content-Encoding: {coding}" in answer.text


@pytest.mark.parametrize(
    ("sent", "named"),
    [("gzip", "gzip"), ("br", "br"), ("GZIP", "GZIP"), ("identity, gzip", "gzip"), ("x-made-up", "x-made-up")],
)
async def test_a_compressed_body_is_refused_by_name_everywhere(tmp_path: Path, sent: str, named: str) -> None:
    """It was parsed as it came: "the body is no valid JSON", on a body that was."""
    body = gzip.compress(b"{}")
    async with (
        broker(tmp_path) as (server, _),
        running_publisher(server.url) as (api, _),
        running_gateway(server.url) as running,
        httpx.AsyncClient(base_url=running.url) as gateway,
    ):
        for client, endpoints in ((api, PUBLISHER), (gateway, GATEWAY)):
            for path, kind in endpoints:
                fields = {"content-type": kind, "content-encoding": sent}
                refused(await client.post(path, content=body, headers=fields), named)


async def test_a_body_that_says_that_it_is_as_it_is_is_read(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (api, _):
        for coding in ("identity", "Identity", ""):
            sent = await api.post(
                "/api/sse/broadcast", json={"event_type": "n", "data": 1}, headers={"content-encoding": coding}
            )
            assert sent.status_code == 202, sent.text


async def test_every_endpoint_that_takes_a_body_is_tried_here(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (api, _):
        paths = (await api.get("/openapi.json")).json()["paths"]
    with_body = {path for path, calls in paths.items() for call in calls.values() if "requestBody" in call}
    assert with_body == {path for path, _ in PUBLISHER}
