"""NATS's own limits, reached by ordinary callers: each gets an answer, and nobody else notices."""

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import RunningGateway, Stream, open_stream, running_gateway
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.wire.limits import SPARE_SUBSCRIPTIONS

MAX_PAYLOAD = 100_000
TRACED = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": ",".join(f"vendor{number}={'x' * 150 if number == 3 else 'y' * 118}" for number in range(32)),
    "baggage": "secret=" + "b" * 5000,
}
EDGES = [0, 12, 200, 400, 600, 700, 800, 900, 1000, 1500, 2000, 4000, 4100, 4700, 5000, 6000]
"""So much less than what NATS takes: around all that may come to an event's data."""


def limit_of(answer: httpx.Response) -> int:
    """What an answer 413 says is allowed."""
    found = re.search(r"limit of (\d+) bytes", answer.text)
    assert found is not None, answer.text
    return int(found[1])


@pytest.mark.parametrize("tracing", ["caller's", "none"])
@pytest.mark.parametrize(
    "more", [{"durable": True}, {"durable": False}, {"receipt": True}], ids=["durable", "volatile", "receipt"]
)
async def test_an_event_of_any_size_is_taken_or_refused_with_what_is_allowed(
    tmp_path: Path, more: dict[str, Any], tracing: str
) -> None:
    """Data just under the limit, with a long `tracestate`, was over it with its headers: NATS ended the connection, the
    client closed for good, and the process answered 503 for ever while it said that it was healthy."""
    headers = TRACED if tracing == "caller's" else {}
    async with (
        nats_server(tmp_path, config=f"max_payload: {MAX_PAYLOAD}") as server,
        running_gateway(server.url) as gateway,
        running_publisher(server.url) as (client, bus),
        open_stream(gateway.url, {"client_id": "ann"}) as stream,
    ):
        await stream.connected()

        async def send(size: int) -> httpx.Response:
            body = {"client_id": "ann", "event_type": "note", "data": "x" * size, **more}
            return await client.post("/api/sse/send", json=body, headers=headers)

        allowed = set()
        for less in EDGES:
            answer = await send(MAX_PAYLOAD - less)
            if answer.status_code == 413:
                allowed.add(limit_of(answer))
            else:
                assert answer.status_code == 202, answer.text
                assert len((await stream.next("note")).data) == MAX_PAYLOAD - less
        (most,) = allowed
        assert MAX_PAYLOAD - 900 < most < MAX_PAYLOAD
        assert (await send(most + 1)).status_code == 413
        assert (await send(most)).status_code == 202
        assert (await client.get("/readyz")).status_code == 200
        assert (bus.losses, gateway.bus.losses) == (0, 0)


async def test_chats_batches_and_completions_of_any_size_end_no_connection(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, config=f"max_payload: {MAX_PAYLOAD}") as server,
        running_gateway(server.url, completion_seconds=0.1) as gateway,
        running_publisher(server.url) as (client, bus),
        httpx.AsyncClient(base_url=gateway.url, timeout=20, headers=TRACED) as front,
    ):
        found = set()
        for less in EDGES:
            text = "x" * (MAX_PAYLOAD - less)
            lines = [{"client_id": "a", "event_type": "n", "data": text}, {"topic": "t", "event_type": "n", "data": 1}]
            batch = await client.post(
                "/api/sse/batch",
                content="\n".join(map(json.dumps, lines)),
                headers={**TRACED, "content-type": "application/x-ndjson"},
            )
            broadcast = await client.post("/api/sse/broadcast", json={"event_type": "n", "data": text}, headers=TRACED)
            chat = await client.post("/api/ai/chat", json={"client_id": "ann", "prompt": text}, headers=TRACED)
            asked = {"model": "m", "messages": [{"role": "user", "content": text}]}
            completion = await front.post("/v1/chat/completions", json=asked)
            found |= {("batch", batch.status_code), ("broadcast", broadcast.status_code), ("chat", chat.status_code)}
            found.add(("completion", 413 if completion.status_code == 413 else 0))
        assert found >= {("broadcast", 202), ("broadcast", 413), ("chat", 202), ("chat", 413)}
        assert found >= {("completion", 0), ("completion", 413)}
        assert {status for _, status in found} <= {0, 200, 202, 207, 413}
        assert (await client.get("/readyz")).status_code == 200
        assert (await front.get("/readyz")).status_code == 200
        assert (bus.losses, gateway.bus.losses) == (0, 0)


async def test_what_nats_takes_is_lowered_and_the_first_that_is_too_large_gets_413(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, config=f"max_payload: {MAX_PAYLOAD}") as server,
        running_gateway(server.url) as gateway,
        running_publisher(server.url) as (client, bus),
        open_stream(gateway.url, {"client_id": "ann"}) as stream,
    ):
        await stream.connected()
        await server.reload("max_payload: 40000")
        body = {"client_id": "ann", "event_type": "note", "data": "x" * 50_000}
        for _ in range(2):
            answer = await client.post("/api/sse/send", json=body)
            assert answer.status_code == 413, answer.text
            assert 39_000 < limit_of(answer) < 40_000
        assert bus.losses == 1
        small = await client.post("/api/sse/send", json={**body, "data": "x" * 30_000})
        assert small.status_code == 202, small.text
        assert len((await stream.next("note")).data) == 30_000
        assert (await client.get("/healthz")).status_code == 200


async def opened(gateway: RunningGateway, stack: AsyncExitStack, **listens: Any) -> Stream | None:
    """A stream; None where it is refused for NATS's limit, in so many words."""
    try:
        stream = await stack.enter_async_context(open_stream(gateway.url, listens))
    except AssertionError as error:
        refused = str(error)
    else:
        await stream.connected()
        return stream
    assert refused.startswith("503")
    assert "max_subscriptions" in refused
    return None


async def test_a_stream_that_nats_has_no_subscription_for_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    """The stream that reached `max_subscriptions` made every stream of the gateway deaf, itself included."""
    async with (
        nats_server(tmp_path, config="max_subscriptions: 100") as server,
        running_gateway(server.url, max_connections_per_ip=0) as gateway,
        running_publisher(server.url) as (client, _),
        AsyncExitStack() as stack,
    ):
        first = await opened(gateway, stack, client_id="first")
        assert first is not None
        topics = [f"t{number}" for number in range(100)]
        assert await opened(gateway, stack, client_id="many", topic=topics) is None
        await until(lambda: gateway.bus.losses == 1 and gateway.bus.connected, "the limit was found out", 20)
        assert await opened(gateway, stack, client_id="many", topic=topics) is None
        others = [await opened(gateway, stack, client_id=f"c{number}") for number in range(100)]
        heard = [stream for stream in others if stream is not None]
        assert 60 <= len(heard) < 100 - SPARE_SUBSCRIPTIONS
        assert others[len(heard) :] == [None] * (100 - len(heard))
        for stream in (first, heard[0], heard[-1]):
            name = "first" if stream is first else f"c{heard.index(stream)}"
            body = {"client_id": name, "event_type": "note", "data": 1, "receipt": True}
            assert (await client.post("/api/sse/send", json=body)).json()["delivered"] == 1
            assert (await stream.next("note")).data == "1"
        await heard[-1].close()
        await until(lambda: gateway.gateway.hub.audience(f"client.c{len(heard) - 1}") is None, "its place is free")
        assert await opened(gateway, stack, client_id="next") is not None
        assert gateway.bus.losses == 1
        assert gateway.gateway.admission.refused["unavailable"] == 2 + 100 - len(heard)
        for url in (gateway.url, str(client.base_url)):
            assert (await client.get(f"{url}/readyz")).status_code == 200
