"""What a caller behind nginx gets, which speaks HTTP/1.0 to its upstreams unless it is told otherwise."""

import json
import re
from pathlib import Path

import pytest

from tests.integration.openai_front.support import ASK, front
from tests.support.http import answer_in, exchange, head


def request(version: str, stream: bool) -> bytes:
    body = json.dumps({"model": "any", "messages": ASK, "stream": stream}).encode()
    line = f"POST /v1/chat/completions HTTP/{version}"
    return head(line, "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close") + body


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def untraced(body: bytes) -> bytes:
    """An answer without its trace, which is each request's own."""
    return re.sub(rb'"trace_id":"[0-9a-f]{32}"', b"", body)


async def test_a_stream_over_http_1_0_ends_with_its_connection(tmp_path: Path) -> None:
    """It was refused with 505, so that `/v1` behind an nginx of the usual kind could not stream."""
    async with front(tmp_path) as (gateway, _, _):
        found = answer_in(await exchange(port_of(gateway.url), request("1.0", stream=True)))
        assert found.status == 200
        assert b"transfer-encoding" not in found.head
        assert b"\r\nconnection: close" in found.head
        events = found.body.decode().split("\n\n")
        assert [event[:6] for event in events[:-1]] == ["data: "] * (len(events) - 1)
        assert events[-2:] == ["data: [DONE]", ""]
        told = [json.loads(event[6:])["choices"][0]["delta"].get("content") or "" for event in events[:-2]]
        assert "".join(told) == "Hello world"


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/models", "/", "/console/console.js", "/nothing"])
async def test_what_is_answered_is_the_same_over_http_1_0(path: str, tmp_path: Path) -> None:
    async with front(tmp_path) as (gateway, _, _):
        old = answer_in(await exchange(port_of(gateway.url), head(f"GET {path} HTTP/1.0")))
        new = answer_in(await exchange(port_of(gateway.url), head(f"GET {path} HTTP/1.1", "Connection: close")))
        assert (old.status, b"transfer-encoding" in old.head) == (new.status, False)
        if path != "/metrics":
            assert untraced(old.body) == untraced(new.body)


async def test_a_whole_answer_has_its_length(tmp_path: Path) -> None:
    async with front(tmp_path) as (gateway, _, _):
        whole = answer_in(await exchange(port_of(gateway.url), request("1.0", stream=False)))
        assert (whole.status, json.loads(whole.body)["choices"][0]["message"]["content"]) == (200, "Hello world")
        assert b"\r\ncontent-length: %d\r\n" % len(whole.body) in whole.head
