"""JSON with U+2028, U+2029 and U+0085, read by a client that takes them for line ends (httpx's `aiter_lines`)."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.publisher import running_publisher

DATA = {"text": "one\u2028two\u2029three\x85four – “five”", "list": ["\u2028"]}


async def test_an_event_with_line_separators_arrives_whole_live_and_by_replay(tmp_path: Path) -> None:
    """Such a client got the event's first line only, which is no JSON: the rest is a field of no name for it.

    It is escaped where events are framed, so it does not matter who has written it, and both ways give the same bytes.
    """
    async with (
        broker(tmp_path) as (server, bus),
        running_publisher(server.url) as (api, _),
        running_gateway(server.url) as running,
    ):
        asked = {"client_id": "ann"}
        async with open_stream(running.url, asked) as live:
            await live.connected()
            place = live.events[0].id
            sent = {"client_id": "ann", "event_type": "note", "data": DATA}
            assert (await api.post("/api/sse/send", json=sent)).status_code == 202
            raw = json.dumps(DATA, ensure_ascii=False, indent=1).encode()
            await bus.jetstream.publish("tg.in.client.ann", raw, headers={"Tidegate-Event": "note"})
            heard = [await live.next("note") for _ in range(2)]
        assert [json.loads(event.data) for event in heard] == [DATA, DATA]
        async with open_stream(running.url, asked, {"last-event-id": place}) as replayed:
            again = [await replayed.next("note") for _ in range(2)]
        assert [(event.id, event.data) for event in again] == [(event.id, event.data) for event in heard]
        async with httpx.AsyncClient() as client:
            async with client.stream(
                "GET", f"{running.url}/api/sse", params=asked, headers={"last-event-id": place}
            ) as answer:
                text = b""
                async for piece in answer.aiter_raw():
                    text += piece
                    if text.count(b"event: note") == 2 and text.endswith(b"\n\n"):
                        break
        assert rb"one\u2028two\u2029three\u0085four" in text
        assert "“five”".encode() in text
