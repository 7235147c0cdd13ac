"""Bytes that are no text are refused wherever a name can stand: read as U+FFFD, two users would be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.support.bus import broker
from tests.support.generated import holds_for, not_utf8, percent_encoded
from tests.support.publisher import running_publisher
from tests.support.wire import ask

JSON = {"content-type": "application/json"}
BODIES: dict[str, dict[str, Any]] = {
    "/api/sse/send": {"client_id": "a", "event_type": "n", "data": "text"},
    "/api/sse/broadcast": {"event_type": "n", "data": {"key": "text"}},
    "/api/ai/chat": {"client_id": "a", "prompt": "text", "model": "m", "stop": ["x"]},
    "/api/ai/jobs": {"topic": "a.b", "kind": "transform", "params": {"text": "some"}},
}


async def test_a_name_in_a_path_is_utf8_or_refused(tmp_path: Path) -> None:
    """`DELETE /api/presence/users/%F6` once ended the connections of the user U+FFFD, as did `%E4`."""
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):

        async def refused(raw: bytes) -> None:
            name = percent_encoded(raw)
            for method, path in (
                ("GET", f"/api/presence/clients/{name}"),
                ("DELETE", f"/api/presence/users/{name}"),
                ("GET", f"/api/presence/topics/a.{name}"),
                ("GET", f"/api/ai/chat/{name}"),
                ("DELETE", f"/api/ai/jobs/{name}"),
                ("GET", f"/api/ai/dead/{name}"),
                ("POST", f"/api/ai/dead/{name}/retry"),
                ("GET", f"/docs/static/{name}"),
            ):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.json()["field"]) == (422, "path"), path
                assert answer.json()["trace_id"]

        await refused(b"\xf6")
        await holds_for(not_utf8(), refused, 20)
        assert (await client.get("/api/presence/users/%EF%BF%BD")).json() == {"connections": 0}
        assert (await client.get("/api/presence/users/%C3%B6")).json() == {"connections": 0}


async def test_a_parameter_is_utf8_and_known_or_refused(tmp_path: Path) -> None:
    """A parameter that nobody reads asks for something that does not happen: `?ttl=5` beside a body, for one."""
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):

        async def refused(raw: bytes) -> None:
            answer = await client.get(f"/api/ai/dead?limit={percent_encoded(raw)}")
            assert (answer.status_code, answer.json()["field"]) == (422, "limit")

        await holds_for(not_utf8(), refused, 20)
        for method, path, field in (
            ("GET", "/api/ai/dead?limits=5", "limits"),
            ("GET", "/api/ai/dead?limit=5&limit=6", "limit"),
            ("GET", "/api/presence/clients/a?user_id=b", "user_id"),
            ("DELETE", "/api/presence/clients/a?dry_run=1", "dry_run"),
            ("POST", "/api/sse/send?ttl=5", "ttl"),
            ("DELETE", f"/api/ai/chat/{'0' * 32}?grace=1", "grace"),
        ):
            answer = await client.request(method, path, json={} if method == "POST" else None)
            assert (answer.status_code, answer.json()["field"]) == (422, field), path
        added = "_=1732810000&utm_source=x&fbclid=y"
        assert (await client.get(f"/api/ai/dead?limit=5&{added}")).json() == {"jobs": [], "total": 0}


async def test_a_limit_is_a_number_in_ascii_of_any_length_or_refused(tmp_path: Path) -> None:
    """One of 5,000 digits was a fault of ours (500), and another script's digits were read as ours."""
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        for text in ("9" * 5_000, "\u0663", "\xb2", "+5", "1_0", " 5", "0", "1001", "-1", "1.0"):
            answer = await client.get("/api/ai/dead", params={"limit": text})
            assert (answer.status_code, answer.json()["field"]) == (422, "limit"), text
        for text in ("1", "1000", ""):
            assert (await client.get("/api/ai/dead", params={"limit": text})).status_code == 200, text


async def test_a_key_is_visible_ascii_and_given_once(tmp_path: Path) -> None:
    """Of two keys the first once counted, and the second was dropped in silence."""
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        for path, body in BODIES.items():
            sent = json.dumps(body).encode()
            for fields in (b"Idempotency-Key: \xf6", b"Idempotency-Key: a\r\nIdempotency-Key: b"):
                head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % path.encode()
                told = await ask(
                    str(client.base_url), b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (head, fields, len(sent), sent)
                )
                assert (told.status, told.problem["field"]) == (422, "Idempotency-Key"), path


async def test_a_body_with_bytes_or_surrogates_that_are_no_text_is_refused(tmp_path: Path) -> None:
    """Whatever field they stand in, in its name too: the body is no JSON, or the field is named."""
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):

        async def refused(asked: tuple[str, int, bytes]) -> None:
            path, place, no_text = asked
            body = json.dumps(BODIES[path]).encode()
            places = [number for number in range(1, len(body)) if body[number : number + 1].isalpha()]
            at = places[place % len(places)]
            answer = await client.post(path, content=body[:at] + no_text + body[at:], headers=JSON)
            assert answer.status_code in (400, 422), (body[:at], answer.text)

        surrogates = st.sampled_from([b"\\ud800", b"\\udfff", b"\\ud800\\ud800", b"\\udc00\\ud800", b"\\uD83D."])
        raw = st.sampled_from([b"\xf6", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff"])
        values = st.tuples(st.sampled_from(sorted(BODIES)), st.integers(0, 200), surrogates | raw)
        await holds_for(values, refused, 150)
