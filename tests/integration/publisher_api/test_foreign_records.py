"""Records and dead jobs that are not ours, or of another release: none of them is an error of ours."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.js.kv import KeyValue

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.publisher import running_publisher
from tidegate_common.bus.connection import Bus

CHAT = {"prompt": "hello", "client_id": "ann"}
COMPLETION = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
KEY = {"idempotency-key": "k"}


class World(NamedTuple):
    """A publisher-api, a gateway, and what is kept of jobs."""

    api: httpx.AsyncClient
    gateway: httpx.AsyncClient
    bus: Bus
    states: KeyValue
    dead: KeyValue


@asynccontextmanager
async def world(data: Path) -> AsyncIterator[World]:
    async with (
        broker(data) as (server, bus),
        running_publisher(server.url) as (api, _),
        running_gateway(server.url) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as stream,
    ):
        states = await bus.jetstream.key_value("TG_JOBS_STATE")
        yield World(api, stream, bus, states, await bus.jetstream.key_value("TG_JOBS_DEAD"))


def state_of(job_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    now = time.time()
    state = {"job_id": job_id, "kind": "chat", "status": "done", "created": now, "updated": now, "tail": "client.ann"}
    return {**state, **fields}


def dead_of(job_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    job = {"job_id": job_id, "kind": "chat", "tail": "client.ann", "params": {}, "created": 1.0, **fields}
    return {"job": job, "error": "internal_error: no", "attempts": 1, "failed": 2.0}


VALUES: list[Any] = [
    b"",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b"5",
    {"status": "resting"},
    {"job_id": "another"},
    {"tail": "a b\r\nPUB x 0"},
    {"tail": ">"},
    {"usage": 5},
    {"updated": -1},
]


def written(job_id: str, value: Any, make: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(make(job_id, value)).encode()


async def test_a_record_that_can_not_be_read_is_no_job_on_every_call(tmp_path: Path) -> None:
    """One record that was corrupt, or of a newer release, was a 500 on each call about its job; a tail with a line end
    in it wrote into the gateway's connection to NATS."""
    async with world(tmp_path) as w:
        started = (await w.api.post("/api/ai/chat", json=CHAT, headers=KEY)).json()["job_id"]
        for value in VALUES:
            await w.states.put(started, written(started, value, state_of))
            path = f"/api/ai/jobs/{started}"
            for status, answer in [
                (404, await w.api.get(path)),
                (404, await w.api.delete(path)),
                (422, await w.api.post("/api/ai/chat", json=CHAT, headers=KEY)),
                (404, await w.gateway.get(f"/api/sse/jobs/{started}")),
            ]:
                assert (value, answer.status_code) == (value, status), answer.text
        asked = asyncio.create_task(w.gateway.post("/v1/chat/completions", json=COMPLETION, headers=KEY))
        watcher = await w.states.watchall()
        async for entry in watcher:
            if entry is not None and entry.key != started:
                break
        assert entry is not None
        await w.states.put(entry.key, b"{")
        again = await w.gateway.post("/v1/chat/completions", json=COMPLETION, headers=KEY)
        assert (again.status_code, again.json()["error"]["code"]) == (422, "idempotency_key_reused")
        asked.cancel()
        metrics = (await w.api.get("/metrics")).text
        assert 'what="record"' in metrics


async def test_what_is_among_the_dead_and_is_no_dead_job_is_left_out_and_can_be_removed(tmp_path: Path) -> None:
    """One entry that nobody could read made the list of the dead a 503 after five seconds, each time."""
    async with world(tmp_path) as w:
        good = "a" * 32
        await w.dead.put(good, json.dumps(dead_of(good, {})).encode())
        bad = [b"{", b"5", b"\xff", {"kind": "a b"}, {"tail": "a b"}, {"owner": "a\r\nb"}, {"created": 1e300}]
        for number, value in enumerate(bad):
            job_id = f"{number:032x}"
            await w.dead.put(job_id, written(job_id, value, dead_of))
        for key in ("x", "a/b", "a.b.c", "f" * 32):
            await w.dead.put(key, json.dumps(dead_of(good, {})).encode())
        listed = (await w.api.get("/api/ai/dead")).json()
        assert ([each["job_id"] for each in listed["jobs"]], listed["total"]) == ([good], 1)
        for number in range(len(bad)):
            path = f"/api/ai/dead/{number:032x}"
            assert (await w.api.get(path)).status_code == 404
            assert (await w.api.post(f"{path}/retry", json={})).status_code == 404
            assert (await w.api.delete(path)).status_code == 204
            assert (await w.api.get(path)).status_code == 404
        assert (await w.api.post(f"/api/ai/dead/{good}/retry", json={})).status_code == 202


NAMES = ["job_id", "kind", "status", "created", "updated", "tail", "owner", "start", "end", "usage", "error", "pieces"]
TEXTS = st.one_of(st.sampled_from(["", ">", "a b", "client.ann", "\r\n", "done", "\ud83d", "x-1"]), st.text(max_size=3))
ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(st.integers(), max_size=1))
RECORDS = st.one_of(st.dictionaries(st.sampled_from(NAMES), ODD, min_size=1, max_size=2), st.binary(max_size=5))


async def test_no_record_is_an_error_of_ours_whatever_it_holds(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        loop, numbers = asyncio.get_running_loop(), itertools.count()

        def run(value: Any) -> None:
            asyncio.run_coroutine_threadsafe(check(value), loop).result(30)

        async def check(value: Any) -> None:
            job_id = f"{next(numbers):032x}"
            await w.states.put(job_id, written(job_id, value, state_of))
            await w.dead.put(job_id, written(job_id, value, dead_of))
            for answer in [
                await w.api.get(f"/api/ai/jobs/{job_id}"),
                await w.api.delete(f"/api/ai/jobs/{job_id}"),
                await w.api.get(f"/api/ai/dead/{job_id}"),
                await w.api.get("/api/ai/dead?limit=5"),
                await w.gateway.head(f"/api/sse/jobs/{job_id}"),
                await w.api.post(f"/api/ai/dead/{job_id}/retry", json={}),
                await w.api.delete(f"/api/ai/dead/{job_id}"),
            ]:
                assert answer.status_code < 500, (value, answer.request.url, answer.text)

        quick = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        await asyncio.to_thread(quick(given(RECORDS)(run)))
        assert (await w.api.get("/readyz")).status_code == 200
