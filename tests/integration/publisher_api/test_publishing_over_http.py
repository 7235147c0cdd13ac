from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import broker
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.bus.wire import headers

EVENT: dict[str, Any] = {"event_type": "note", "data": {"text": "hi"}}
NDJSON = {"content-type": "application/x-ndjson"}


class Heard:
    """All that comes out of NATS."""

    def __init__(self, bus: Bus) -> None:
        self.messages: list[tuple[str, bytes, bytes]] = []
        bus.client.subscribe_direct("tg.out.>", lambda subject, block, payload: self._hear(subject, block, payload))

    @classmethod
    async def of(cls, bus: Bus) -> Heard:
        """From now on: the server knows of it when this returns."""
        heard = cls(bus)
        await bus.round_trip()
        return heard

    def _hear(self, subject: bytes, block: bytes, payload: bytes) -> None:
        self.messages.append((subject.decode(), block, payload))


async def test_a_send_comes_out_with_its_text_type_and_trace(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard = await Heard.of(bus)
        caller = {"traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"}
        sent = await client.post("/api/sse/send", json={"user_id": "a.b", **EVENT}, headers=caller)
        epoch = (await History(bus).position()).epoch
        assert (sent.status_code, sent.json()) == (
            202,
            {"id": f"{epoch}-1", "trace_id": "0123456789abcdef0123456789abcdef"},
        )
        await until(lambda: heard.messages, "the event comes out")
        ((subject, block, payload),) = heard.messages
        assert (subject, payload) == ("tg.out.user.a%2Eb", b'{"text":"hi"}')
        assert headers.field(block, headers.EVENT_TYPE) == b"note"
        parent = headers.field(block, headers.TRACE_PARENT)
        assert parent is not None
        assert b"0123456789abcdef0123456789abcdef" in parent


async def test_a_broadcast_and_a_volatile_event_come_out_where_they_should(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard = await Heard.of(bus)
        await client.post("/api/sse/broadcast", json=EVENT)
        volatile = await client.post("/api/sse/send", json={"topic": "t", "durable": False, **EVENT})
        assert (volatile.status_code, volatile.json()["id"]) == (202, None)
        await until(lambda: len(heard.messages) == 2, "both come out")
        assert [subject for subject, *_ in heard.messages] == ["tg.out.broadcast", "tg.out.topic.t"]
        assert (await History(bus).position()).last == 1


async def test_an_idempotency_key_makes_one_event(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        key = {"idempotency-key": "k-1"}
        first, again = [
            (await client.post("/api/sse/send", json={"client_id": "a", **EVENT}, headers=key)).json() for _ in range(2)
        ]
        assert (again["id"], again["duplicate"]) == (first["id"], True)
        assert (await History(bus).position()).last == 1
        bad = await client.post("/api/sse/broadcast", json=EVENT, headers={"idempotency-key": "a b"})
        assert (bad.status_code, bad.json()["field"]) == (422, "Idempotency-Key")


async def test_an_idempotency_key_of_a_volatile_event_is_refused_and_nothing_is_sent(tmp_path: Path) -> None:
    """It was taken, and each repeat was sent: what tells repeats apart is the stream, which has no volatile events."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard, key = await Heard.of(bus), {"idempotency-key": "k"}
        volatile = {"durable": False, **EVENT}
        for path, body in (("/api/sse/send", {"client_id": "a", **volatile}), ("/api/sse/broadcast", volatile)):
            refused = await client.post(path, json=body, headers=key)
            assert (refused.status_code, refused.json()["field"]) == (422, "Idempotency-Key")
        lines = [json.dumps({"client_id": "a", **body}) for body in (volatile, EVENT)]
        batch = await client.post("/api/sse/batch", content="\n".join(lines), headers={**NDJSON, **key})
        first, second = batch.json()["results"]
        assert (first["status"], first["field"], second["status"]) == (422, "Idempotency-Key", 202)
        await until(lambda: heard.messages, "the durable line comes out")
        assert [payload for *_, payload in heard.messages] == [b'{"text":"hi"}']


async def test_a_time_to_live_bounds_the_replay(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        await client.post("/api/sse/send", json={"client_id": "a", "ttl": 1, **EVENT})
        await client.post("/api/sse/send", json={"client_id": "a", **EVENT})
        history = History(bus)

        async def kept() -> bool:
            return [stored.sequence async for stored in history.after("client.a", 0, 2)] == [2]

        await until(kept, "the first event is gone")


async def test_a_batch_is_stored_in_line_order_and_answers_for_each_line(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard = await Heard.of(bus)
        lines = [json.dumps({"client_id": "a", "event_type": "n", "data": number}) for number in range(600)]
        lines[1] = "nonsense"
        lines[2] = ""
        lines[3] = '{"broadcast":true,"event_type":"n","data":3}'
        lines[4] = '{"client_id":"a","data":4}'
        answer = await client.post("/api/sse/batch", content="\n".join(lines), headers=NDJSON)
        assert answer.status_code == 200
        body = answer.json()
        assert (body["accepted"], body["refused"]) == (597, 2)
        assert [result["line"] for result in body["results"]] == [n for n in range(1, 601) if n != 3]
        assert (body["results"][1]["status"], body["results"][3]["field"]) == (400, "event_type")
        await until(lambda: len(heard.messages) == 597, "all come out")
        assert [int(payload) for *_, payload in heard.messages] == [n for n in range(600) if n not in (1, 2, 4)]


@pytest.mark.parametrize(
    ("path", "content", "content_type", "status", "field"),
    [
        ("/api/sse/send", b"{}", "text/plain", 415, None),
        ("/api/sse/send", b"{", "application/json", 400, None),
        ("/api/sse/send", b'{"data":1,"client_id":"a"}', "application/json", 422, "event_type"),
        ("/api/sse/send", b'{"event_type":"n","data":1,"client_id":7}', "application/json", 422, "client_id"),
        ("/api/sse/send", b'{"event_type":"n","data":1,"topic":"a.*"}', "application/json", 422, "topic"),
        ("/api/sse/send", b'{"event_type":"n","data":1,"receipt":"yes"}', "application/json", 422, "receipt"),
        ("/api/sse/broadcast", b'{"event_type":"n","data":1,"client_id":"a"}', "application/json", 422, "client_id"),
        ("/api/sse/broadcast", b'"' + b"x" * 3000 + b'"', "application/json", 413, None),
        ("/api/sse/batch", b"{}\n{}\n{}\n", "application/x-ndjson", 422, "body"),
        ("/api/sse/batch", b"{}", "application/json", 415, None),
        ("/api/ai/chat", b'{"client_id":"a"}', "application/json", 422, "prompt"),
        ("/api/ai/chat", b'{"client_id":"a","prompt":"x","n":9}', "application/json", 422, "n"),
        ("/api/ai/chat", b'{"client_id":"a","messages":[{"role":"x"}]}', "application/json", 422, "messages[0].role"),
    ],
)
async def test_what_is_wrong_is_said_as_problem_details_and_nothing_is_stored(
    tmp_path: Path, path: str, content: bytes, content_type: str, status: int, field: str | None
) -> None:
    settings = {"max_body_bytes": 2000, "max_batch_lines": 2}
    async with broker(tmp_path) as (server, bus), running_publisher(server.url, **settings) as (client, _):
        answer = await client.post(path, content=content, headers={"content-type": content_type})
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem.get("field") == field
        assert problem["status"] == status
        assert len(problem["trace_id"]) == 32
        assert (await History(bus).position()).last == 0


async def test_json_that_is_nested_too_deeply_is_refused_and_stops_no_other_line(tmp_path: Path) -> None:
    """It was an internal error, and one such line failed its whole batch."""
    deep = b'{"client_id":"a","event_type":"n","data":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    good = b'{"broadcast":true,"event_type":"n","data":1}'
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        alone = await client.post("/api/sse/send", content=deep, headers={"content-type": "application/json"})
        assert (alone.status_code, alone.json()["type"]) == (400, "urn:tidegate:problem:invalid-body")
        batch = (await client.post("/api/sse/batch", content=b"\n".join([good, deep, good]), headers=NDJSON)).json()
        assert [result["status"] for result in batch["results"]] == [202, 400, 202]


async def test_methods_origins_and_unknown_paths_are_answered_as_http_has_it(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        refused = await client.get("/api/sse/send")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert refused.headers["content-type"] == "application/problem+json"
        other = await client.put("/api/ai/chat/x")
        assert (other.status_code, set(other.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "DELETE"})
        assert (await client.get("/api/nothing")).status_code == 404
        preflight = {"origin": "http://127.0.0.1:8000", "access-control-request-method": "DELETE"}
        allowed = await client.options("/api/ai/chat/x", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "http://127.0.0.1:8000"
        assert "DELETE" in allowed.headers["access-control-allow-methods"]
        strange = await client.options("/api/ai/chat/x", headers=preflight | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in strange.headers
        for prefix in ("", "/api"):
            assert (await client.get(f"{prefix}/openapi.json")).json()["openapi"] == "3.1.0"
            assert (await client.get(f"{prefix}/docs")).status_code == 200
            assert (await client.get(f"{prefix}/docs/static/swagger-ui.css")).status_code == 200
        assert (await client.head("/openapi.json")).status_code == 200
        assert "tidegate_messages_published_total" in (await client.get("/metrics")).text
        assert (await client.get("/readyz")).status_code == 200


async def test_while_nats_is_away_publishing_is_refused_with_a_time_to_come_back_and_then_works_again(
    tmp_path: Path,
) -> None:
    async with broker(tmp_path) as (server, _):
        async with running_publisher(server.url, publish_deadline_seconds=0.3) as (client, bus):
            await server.run.stop(signal.SIGKILL)
            await until(lambda: not bus.connected, "the loss is noticed")
            batch = b'{"broadcast":true,"event_type":"n","data":1}\n' * 300
            asked: list[tuple[str, dict[str, Any]]] = [
                ("/api/sse/send", {"json": {"client_id": "a", **EVENT}}),
                ("/api/sse/send", {"json": {"client_id": "a", "durable": False, **EVENT}}),
                ("/api/ai/chat", {"json": {"client_id": "a", "prompt": "hi"}}),
            ]
            answers = await asyncio.gather(*(client.post(path, **body) for path, body in asked))
            for answer in answers:
                assert (answer.status_code, answer.json()["type"]) == (503, "urn:tidegate:problem:unavailable")
                assert int(answer.headers["retry-after"]) > 0
            results = (await client.post("/api/sse/batch", content=batch, headers=NDJSON)).json()
            assert (results["accepted"], results["refused"]) == (0, 300)
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            async with nats_server(tmp_path, server.port):
                await until(lambda: bus.connected, "NATS is back", 20)
                answer = await client.post("/api/sse/send", json={"client_id": "a", **EVENT})
                assert answer.json()["id"].endswith("-1"), "nothing that was refused was stored"


async def test_without_the_stream_it_is_not_ready_and_says_so(tmp_path: Path) -> None:
    """It asked NATS for a sign of life only: traffic went on to a process that could store nothing."""
    async with broker(tmp_path) as (server, bus):
        async with running_publisher(server.url, publish_deadline_seconds=0.3, election_seconds=0.5) as (client, _):
            assert (await client.get("/readyz")).status_code == 200
            await bus.jetstream.delete_stream("TG_EVENTS")
            probe = await client.get("/readyz")
            assert probe.status_code == 503
            assert probe.json()["faults"] == {}
            assert probe.json()["dependencies"] == {"TG_EVENTS": "the stream TG_EVENTS does not exist"}
            assert (await client.post("/api/sse/broadcast", json=EVENT)).status_code == 503
            await ensure_streams(bus, StreamLimits(), update=False)
            assert (await client.get("/readyz")).status_code == 200


async def test_the_client_s_own_connection_is_kept_alive(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        answers: list[httpx.Response] = [await client.post("/api/sse/broadcast", json=EVENT) for _ in range(3)]
        streams = {answer.extensions["network_stream"].get_extra_info("socket").getsockname() for answer in answers}
        assert len(streams) == 1


async def test_nats_killed_under_a_batch_confirms_nothing_that_is_not_stored_and_stores_nothing_twice(
    tmp_path: Path,
) -> None:
    lines = [json.dumps({"client_id": "a", "event_type": "n", "data": number}) for number in range(5000)]
    async with broker(tmp_path) as (server, bus):
        heard = await Heard.of(bus)
        async with running_publisher(server.url, publish_deadline_seconds=20) as (client, _):
            sending = asyncio.create_task(client.post("/api/sse/batch", content="\n".join(lines), headers=NDJSON))
            await until(lambda: len(heard.messages) > 1000, "the batch is under way")
            await server.run.stop(signal.SIGKILL)
            assert not sending.done()
            async with nats_server(tmp_path, server.port):
                results = (await sending).json()["results"]
                await until(lambda: bus.connected, "the test's own connection is back", 20)
                history = History(bus)
                position = await history.position()
                kept = [stored async for stored in history.after("client.a", 0, position.last)]
                assert [int(stored.payload) for stored in kept] == list(range(5000))
                assert [result["id"] for result in results] == [
                    f"{position.epoch}-{stored.sequence}" for stored in kept
                ]


async def test_volatile_and_durable_lines_of_a_batch_come_out_in_their_order(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        inbound: list[bytes] = []
        bus.client.subscribe_direct("tg.in.>", lambda _, __, payload: inbound.append(payload))
        bus.client.subscribe_direct("tg.out.topic.volatile", lambda _, __, payload: inbound.append(payload))
        await bus.round_trip()
        topics = ["volatile" if number % 3 else "durable" for number in range(60)]
        lines = [
            json.dumps({"topic": topic, "event_type": "n", "data": number, "durable": topic == "durable"})
            for number, topic in enumerate(topics)
        ]
        answer = await client.post("/api/sse/batch", content="\n".join(lines), headers=NDJSON)
        ids = [result["id"] for result in answer.json()["results"]]
        assert [each is None for each in ids] == [topic == "volatile" for topic in topics]
        await until(lambda: len(inbound) == 60, "all come out")
        assert inbound == [b"%d" % number for number in range(60)]
