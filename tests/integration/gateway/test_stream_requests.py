"""`/api/sse`: what is asked for, what is refused, and what comes first."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event


@BOTH_PATHS
async def test_the_first_frame_says_who_and_where_one_is(tmp_path: Path, streams: str) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, streams=streams) as running:
        history = History(bus)
        await EventPublisher(bus, history).durable("broadcast", Event("x", "before"), headers={})
        async with open_stream(running.url, {"client_id": "ann"}) as stream:
            headers = stream.response.headers
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert headers["cache-control"] == "no-cache, no-transform"
            assert headers["x-accel-buffering"] == "no"
            told = {"status": "connected", "client_id": "ann", "resumed": False}
            assert await stream.connected() == {**told, "listening": ["broadcast", "client:ann"]}
            first = stream.events[0]
            assert first.id == f"{(await history.position()).epoch}-1"
            assert first.retry is not None
            assert 1000 <= first.retry <= 3000


async def test_a_page_of_the_own_origin_and_of_another_get_the_same_stream(tmp_path: Path) -> None:
    """The former passes by the middleware: what it gets is the same but for what CORS adds."""
    async with broker(tmp_path) as (server, bus):
        origin = "https://app.example.org"
        async with running_gateway(server.url, cors_origins=(origin,)) as running:
            async with (
                open_stream(running.url, {"client_id": "ann"}) as own,
                open_stream(running.url, {"client_id": "ann"}, {"origin": origin}) as other,
            ):
                assert await own.connected() == await other.connected()
                found = dict(other.response.headers)
                assert found.pop("access-control-allow-origin") == origin
                added = [name for name in found if name.startswith("access-control-")]
                for name in (*added, "date"):
                    found.pop(name)
                expected = dict(own.response.headers)
                expected.pop("date")
                assert found == expected
                await EventPublisher(bus, History(bus)).durable("client.ann", Event("n", "hello"), headers={})
                assert (await own.next()).data == (await other.next()).data == "hello"


async def test_a_client_without_an_id_is_given_one(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        async with open_stream(running.url) as one, open_stream(running.url) as other:
            ids = {(await stream.connected())["client_id"] for stream in (one, other)}
            assert len(ids) == 2
            assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", client_id) for client_id in ids)


async def test_each_kind_of_address_reaches_its_connections_in_stream_order(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        query = {"client_id": "c.1", "user_id": "ann@example.org", "topic": ["prices.*", "alerts.>", "prices.eur"]}
        async with open_stream(running.url, query) as stream, open_stream(running.url, {"client_id": "c.1"}) as twin:
            await stream.connected()
            await twin.connected()
            tails = [
                "client.c%2E1",
                "user.ann%40example%2Eorg",
                "topic.prices.eur",
                "topic.prices.eur.spot",
                "topic.alerts.a.b",
                "topic.alerts",
                "broadcast",
                "client.other",
            ]
            for number, tail in enumerate(tails):
                await publisher.durable(tail, Event("t", f"{number}\n{tail}"), headers={})
            heard = [await stream.next() for _ in range(5)]
            assert [event.data.split("\n")[0] for event in heard] == ["0", "1", "2", "4", "6"]
            assert [int(event.id.split("-")[1]) for event in heard] == [1, 2, 3, 5, 7]
            assert heard[0].event == "t"
            assert [(await twin.next()).data[0] for _ in range(2)] == ["0", "6"]
            assert len(stream.events) == 6


async def test_a_volatile_event_has_no_id_and_comes_once_through_overlapping_topics(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        publisher = EventPublisher(bus, History(bus))
        async with open_stream(running.url, {"topic": ["a.*", "*.b"]}) as stream:
            await stream.connected()
            first_id = stream.events[0].id
            for number in range(3):
                await publisher.volatile("topic.a.b", Event("v", str(number)), headers={})
                await publisher.durable("topic.a.b", Event("d", str(number)), headers={})
            heard = [await stream.next() for _ in range(6)]
            assert [event.event + event.data for event in heard] == ["v0", "d0", "v1", "d1", "v2", "d2"]
            assert heard[0].id == first_id, "an event without an id leaves the client's last id as it was"


async def test_post_takes_the_same_fields_as_json(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:
        async with open_stream(running.url, body={"client_id": "p", "topic": "news"}) as stream:
            assert (await stream.connected())["client_id"] == "p"
            await EventPublisher(bus, History(bus)).durable("topic.news", Event("t", "hi"), headers={})
            assert (await stream.next()).data == "hi"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_id": "a\x00b"}, "client_id"),
        ({"client_id": ["a", "b"]}, "client_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"topic": "a..b"}, "topic"),
        ({"topic": ">.a"}, "topic"),
        ({"topic": ["t"] * 101}, "topic"),
    ],
)
async def test_a_wrong_parameter_is_named_and_leaves_nothing(tmp_path: Path, query: Any, field: str) -> None:
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running, httpx.AsyncClient() as client:
        answer = await client.get(f"{running.url}/api/sse", params=query)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["field"] == field
        assert answer.json()["allowed"]
        assert running.gateway.admission.active == 0
        assert running.gateway.hub.audiences == 0


async def test_bodies_methods_and_preflights_are_answered_as_http_has_it(tmp_path: Path) -> None:
    settings = {"cors_origins": ("https://app.example",), "max_body_bytes": 100}
    async with (
        broker(tmp_path) as (server, _),
        running_gateway(server.url, **settings) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        url = "/api/sse"
        assert (await client.post(url, content=b"a=1")).status_code == 415
        json_type = {"content-type": "application/json"}
        assert (await client.post(url, content=b"{", headers=json_type)).status_code == 400
        assert (await client.post(url, content=b'{"client":"a"}', headers=json_type)).json()["field"] == "client"
        assert (await client.post(url, content=b" " * 101, headers=json_type)).status_code == 413
        refused = await client.put(url)
        assert (refused.status_code, refused.headers["content-type"]) == (405, "application/problem+json")
        assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}
        head = await client.head(url, params={"client_id": "a"})
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        options = await client.options(url)
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
        preflight = {"origin": "https://app.example", "access-control-request-method": "GET"}
        asked = await client.options(url, headers=preflight | {"access-control-request-headers": "last-event-id"})
        assert asked.headers["access-control-allow-origin"] == "https://app.example"
        strange = await client.options(url, headers=preflight | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in strange.headers
        assert (await client.get("/nowhere")).headers["content-type"] == "application/problem+json"
        async with open_stream(running.url, headers={"origin": "https://app.example"}) as stream:
            assert stream.response.headers["access-control-allow-origin"] == "https://app.example"


async def test_one_subscription_for_each_distinct_subject_gone_with_its_last_connection(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_gateway(server.url) as running:

        async def subscribed() -> int:
            """What the server itself says, asked for through a subscription's interest."""
            return running.gateway.hub.audiences

        async with open_stream(running.url, {"client_id": "a", "topic": "t"}) as one:
            await one.connected()
            async with open_stream(running.url, {"client_id": "a", "topic": "t"}) as two:
                await two.connected()
                assert await subscribed() == 3
            await until(lambda: running.gateway.admission.active == 1, "the second has left")
            assert await subscribed() == 3
            await EventPublisher(bus, History(bus)).durable("topic.t", Event("x", "still"), headers={})
            assert (await one.next()).data == "still"
        await until(lambda: running.gateway.hub.audiences == 0, "all subscriptions are gone")
        before = running.gateway.subscriptions.received
        await EventPublisher(bus, History(bus)).durable("topic.t", Event("x", "nobody"), headers={})
        await History(running.bus).position()
        assert running.gateway.subscriptions.received == before, "the server still sends what nobody listens to"


async def test_nothing_of_a_stream_waits_for_a_heartbeat_to_be_forgotten(tmp_path: Path) -> None:
    """100,000 streams that came and went within one heartbeat's time once cost 16 MB that never came back."""
    async with broker(tmp_path) as (server, _), running_gateway(server.url) as running:
        async with open_stream(running.url, {"client_id": "a"}) as stream:
            await stream.connected()
            kept = running.gateway.heartbeat._slices
            assert sum(map(len, kept)) == 1
        await until(lambda: not running.gateway.hub.sessions, "the stream is gone")
        assert sum(map(len, kept)) == 0


@BOTH_PATHS
async def test_heartbeats_come_and_an_idle_stream_is_closed_with_a_word(tmp_path: Path, streams: str) -> None:
    async with broker(tmp_path) as (server, _):
        async with running_gateway(server.url, heartbeat_seconds=0.1, idle_seconds=1, streams=streams) as running:
            async with open_stream(running.url) as stream:
                await stream.connected()
                closing = await stream.next()
                assert closing.event == "closing"
                assert '"idle"' in closing.data
                assert closing.retry
                await until(lambda: stream.ended, "the stream ends")
                assert stream.comments >= 5
            assert running.gateway.hub.ended["idle"] == 1
            assert running.gateway.admission.active == 0


async def test_health_readiness_and_metrics_tell_the_truth(tmp_path: Path) -> None:
    async with (
        broker(tmp_path) as (server, bus),
        running_gateway(server.url) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        async with open_stream(running.url) as stream:
            await stream.connected()
            await EventPublisher(bus, History(bus)).durable("broadcast", Event("x", "1"), headers={})
            await stream.next()
            text = (await client.get("/metrics")).text
            assert re.search(r"^tidegate_connections_active\{.*\} 1(\.0)?$", text, re.M), text
            assert re.search(r"^tidegate_messages_sent_total\{.*\} 1(\.0)?$", text, re.M)
            for name in ("tidegate_connections_total", "tidegate_messages_dropped", "tidegate_reconnects"):
                assert name in text
        assert (await client.get("/healthz")).json()["status"] == "alive"
        assert (await client.get("/readyz")).status_code == 200
        await server.run.stop()
        await until(lambda: not running.bus.connected, "the loss is noticed")
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "nats" in ready.json()["faults"]
        assert (await client.get("/healthz")).status_code == 200
        refused = await client.get("/api/sse")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:tidegate:problem:unavailable")
