"""Bytes that are no text are refused wherever a name can stand: read as U+FFFD, two clients would be one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import strategies as st

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.generated import holds_for, not_utf8, percent_encoded
from tests.support.ways import Way, ask_by

JOB = "0123456789abcdef0123456789abcdef"


def get(target: str | bytes, *fields: bytes) -> bytes:
    path = target.encode() if isinstance(target, str) else target
    return b"\r\n".join([b"GET %s HTTP/1.1" % path, b"Host: localhost", *fields, b"", b""])


@pytest.mark.parametrize("way", Way)
async def test_a_name_in_the_query_is_utf8_or_refused(tmp_path: Path, way: Way) -> None:
    """`client_id=%F6` and `client_id=%E4` once were one client, whose id was U+FFFD: each got the other's events."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:

        async def refused(asked: tuple[str, str, bytes]) -> None:
            path, name, raw = asked
            told = await ask_by(way, running, get(f"{path}?{name}={percent_encoded(raw)}"))
            assert (told.status, told.problem["field"], told.problem["allowed"]) == (422, name, "UTF-8")

        names = st.sampled_from(["client_id", "user_id", "topic", "last_event_id", "lastEventId"])
        of_a_job = st.sampled_from(["client_id", "last_event_id", "lastEventId"])
        job = st.just(f"/api/sse/jobs/{JOB}")
        for raw in (b"\xf6", b"\xe4"):
            await refused(("/api/sse", "client_id", raw))
        await holds_for(st.tuples(st.just("/api/sse"), names, not_utf8()), refused)
        await holds_for(st.tuples(job, of_a_job, not_utf8()), refused, 20)
        unencoded = await ask_by(way, running, get(b"/api/sse?client_id=\xf6"))
        assert unencoded.status == 400, "no byte of a target is other than ASCII (RFC 9112 3.2)"


@pytest.mark.parametrize("way", Way)
async def test_a_parameters_own_name_that_is_no_text_is_said_byte_by_byte(tmp_path: Path, way: Way) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        told = await ask_by(way, running, get("/api/sse?client%F6_id=a"))
        assert (told.status, told.problem["field"]) == (422, "client\\xf6_id")


@pytest.mark.parametrize("way", Way)
async def test_a_name_of_text_is_the_same_however_it_is_written(tmp_path: Path, way: Way) -> None:
    """U+FFFD's own three bytes are text, and stay a name."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url, heartbeat_seconds=0.1) as running:

        async def read(name: str) -> None:
            for value in (percent_encoded(name.encode()), quote(name), quote(name).lower()):
                told = await ask_by(way, running, get(f"/api/sse?client_id={value}"))
                connected = told.event("connected")
                assert connected is not None, told
                assert connected["client_id"] == name

        for name in ("ö", "\ufffd", "日本", "a-ö.b"):
            await read(name)


@pytest.mark.parametrize("way", Way)
async def test_a_last_event_id_in_the_header_is_utf8_or_refused(tmp_path: Path, way: Way) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url, heartbeat_seconds=0.1) as running:

        async def refused(raw: bytes) -> None:
            told = await ask_by(way, running, get("/api/sse", b"Last-Event-ID: x" + raw))
            assert (told.status, told.problem["field"]) == (422, "Last-Event-ID")

        high = st.binary(min_size=1, max_size=3).map(lambda raw: bytes(byte | 0x80 for byte in raw) + b"\xf6")
        await holds_for(high, refused, 20)
        told = await ask_by(way, running, get("/api/sse", "Last-Event-ID: ö".encode()))
        gap = told.event("gap")
        assert gap is not None, told
        assert gap["from"] == "ö"


async def test_a_path_is_utf8_or_refused(tmp_path: Path) -> None:
    """Where the path is another protocol's, so is the answer: OpenAI's clients read its 400."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:

        async def refused(raw: bytes) -> None:
            for path in ("/api/sse/jobs/", "/api/sse", "/nowhere/", "/"):
                told = await ask_by(Way.FAST, running, get(path + percent_encoded(raw)))
                assert (told.status, told.problem["field"]) == (422, "path"), path
            told = await ask_by(Way.FAST, running, get("/v1/models/" + percent_encoded(raw)))
            assert (told.status, told.problem["error"]["param"]) == (400, "path")

        await holds_for(not_utf8(), refused, 20)
        for text in ("ö", "\ufffd"):
            told = await ask_by(Way.FAST, running, get("/api/sse/jobs/" + percent_encoded(text.encode())))
            assert told.status == 404


async def test_a_key_in_a_header_is_visible_ascii_and_given_once(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        for fields in (b"Idempotency-Key: \xf6", b"Idempotency-Key: a\r\nIdempotency-Key: b"):
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            told = await ask_by(
                Way.FAST, running, b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (head, fields, len(body), body)
            )
            assert (told.status, told.problem["error"]["param"]) == (400, "Idempotency-Key")
