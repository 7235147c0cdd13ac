"""How often somebody may publish and submit jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.support.identity import AUTH, bearer, token
from tests.support.nats import nats_server
from tests.support.publisher import running_publisher

NOTE = {"event_type": "n", "data": "x", "topic": "a"}


def publisher(sub: str) -> dict[str, str]:
    return bearer(token(sub, publish=["topic:a", "broadcast"], jobs={}))


async def send(api: httpx.AsyncClient, headers: dict[str, str], **more: Any) -> httpx.Response:
    return await api.post("/api/sse/send", json={**NOTE, **more}, headers=headers)


async def test_who_publishes_too_fast_is_told_when_to_come_back_and_nothing_is_stored(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, **AUTH, limit_publishes="0.01/3") as (api, bus),
    ):
        codes = [(await send(api, publisher("ann"))).status_code for _ in range(3)]
        assert codes == [202, 202, 202]
        for refused in (
            await send(api, publisher("ann")),
            await api.post("/api/sse/broadcast", json={"event_type": "n", "data": "x"}, headers=publisher("ann")),
        ):
            assert (refused.status_code, refused.json()["limit"]) == (429, "publishes")
            assert 90 <= int(refused.headers["retry-after"]) <= 100
        assert (await send(api, publisher("bob"))).status_code == 202
        stored = await bus.api.call("STREAM.INFO.TG_EVENTS")
        assert stored["state"]["messages"] == 4
        metrics = (await api.get("/metrics", headers=bearer(token("ops", admin=["metrics"])))).text
        [counted] = [line for line in metrics.splitlines() if 'limit="publishes"' in line]
        assert counted.endswith(" 2.0")


async def test_what_is_refused_for_another_reason_counts_too(tmp_path: Path) -> None:
    """Else whoever tries out names, or sends what can't be used, could do so as fast as they like."""
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, **AUTH, limit_publishes="0.01/2") as (api, _),
    ):
        codes = [
            (await send(api, publisher("ann"), **more)).status_code for more in ({"topic": "b"}, {"ttl": "no"}, {})
        ]
        assert codes == [403, 422, 429]


async def test_each_line_of_a_batch_counts_and_is_answered_in_its_place(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, **AUTH, limit_publishes="0.01/3") as (api, bus),
    ):
        lines = [NOTE, {**NOTE, "topic": "not.granted"}, NOTE, NOTE, NOTE]
        body = "\n\n".join(json.dumps(line) for line in lines)
        kind = {"Content-Type": "application/x-ndjson"}
        answer = await api.post("/api/sse/batch", content=body, headers={**publisher("ann"), **kind})
        results = answer.json()["results"]
        assert [(each["line"], each["status"]) for each in results] == [
            (1, 202),
            (3, 403),
            (5, 202),
            (7, 429),
            (9, 429),
        ]
        assert results[-1]["limit"] == "publishes"
        stored = await bus.api.call("STREAM.INFO.TG_EVENTS")
        assert stored["state"]["messages"] == 2


async def test_jobs_are_limited_whichever_way_they_are_submitted(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, **AUTH, limit_jobs="0.01/2") as (api, bus),
    ):
        ann = publisher("ann")
        asked = [
            await api.post(path, json=body, headers=ann)
            for path, body in (
                ("/api/ai/chat", {"prompt": "hello"}),
                ("/api/ai/jobs", {"kind": "transform"}),
                ("/api/ai/chat", {"prompt": "hello"}),
                ("/api/ai/jobs", {"kind": "transform"}),
            )
        ]
        assert [each.status_code for each in asked] == [202, 202, 429, 429]
        assert {each.json()["limit"] for each in asked[2:]} == {"jobs"}
        assert (await bus.api.call("STREAM.INFO.TG_JOBS"))["state"]["messages"] == 2


async def test_in_the_mode_open_addresses_have_the_limits(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path) as nats,
        running_publisher(nats.url, limit_publishes="0.01/1", trusted_proxies=("127.0.0.1",)) as (api, _),
    ):

        async def status(address: str) -> int:
            return (await send(api, {"X-Forwarded-For": address})).status_code

        found = [await status(address) for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2")]
        assert found == [202, 429, 202, 429]
