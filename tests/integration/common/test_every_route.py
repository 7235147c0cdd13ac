"""Nothing is answered without a right to it: every route of every service, by its routing table.

A route that tests/support/calls.py does not have fails here. A refused call leaves no trace on NATS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.routing import BaseRoute

from ai_worker.app import Worker
from ai_worker.settings import WorkerSettings
from tests.support.bus import SUBJECTS, connected
from tests.support.calls import ANY, GATEWAY, HEALTH, OPEN, PUBLISHER, THEIRS, Call, routes_of
from tests.support.gateway import running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.nats import nats_server
from tests.support.publisher import built_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.contract.jobs import DeadJob, Job, JobState, JobStatus
from tidegate_common.contract.principal import ADMIN
from tidegate_common.telemetry.providers import telemetry


class Service(NamedTuple):
    url: str
    routes: Sequence[BaseRoute]
    bus: Bus


@asynccontextmanager
async def gateway(nats_url: str, streams: str, **settings: Any) -> AsyncIterator[Service]:
    async with running_gateway(nats_url, streams=streams, completion_seconds=0.2, **AUTH, **settings) as running:
        yield Service(running.url, running.gateway.app.routes, running.bus)


@asynccontextmanager
async def publisher(nats_url: str, **settings: Any) -> AsyncIterator[Service]:
    async with built_publisher(nats_url, **AUTH, **settings) as (api, bus, built):
        yield Service(str(api.base_url), built.routes, bus)


@asynccontextmanager
async def worker(nats_url: str, **more: Any) -> AsyncIterator[Service]:
    settings = WorkerSettings(nats_url=nats_url, port=0, **AUTH, **more)
    with telemetry("ai-worker", {}) as signals:
        async with connect(nats_url, SUBJECTS, "ai-worker") as bus:
            leaders = Leaders(bus)
            upkeep = Upkeep(bus, settings.stream_limits(), leaders, keeps=False, all_needed=True)
            made = Worker(settings, bus, leaders, upkeep, signals)
            await made.identity.start()
            server = made.server()
            serving = asyncio.create_task(server.serve())
            await until(lambda: server.started, "the worker listens")
            try:
                yield Service(f"http://127.0.0.1:{server.port}", made.app.routes, bus)
            finally:
                server.should_exit = True
                await serving
                await made.identity.aclose()


@asynccontextmanager
async def service(nats_url: str, name: str, **settings: Any) -> AsyncIterator[Service]:
    found = {"publisher-api": publisher, "ai-worker": worker}.get(name)
    streams = name.removeprefix("gateway ")
    async with found(nats_url, **settings) if found else gateway(nats_url, streams, **settings) as running:
        yield running


SERVICES = {
    "gateway slim": GATEWAY,
    "gateway plain": GATEWAY,
    "publisher-api": PUBLISHER,
    "ai-worker": HEALTH,
}


class Traces:
    """What a service's calls leave on NATS: what is stored, and what is said."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._said: list[str] = []
        bus.client.subscribe_direct(f"{SUBJECTS.namespace}.>", self._hear)

    def _hear(self, subject: bytes, _: bytes, __: bytes) -> None:
        if subject.decode() != SUBJECTS.gateways:  # what gateways say of themselves, each second
            self._said.append(subject.decode())

    async def all(self) -> tuple[list[str], dict[str, int]]:
        await self._bus.round_trip()
        found = await self._bus.api.call("STREAM.LIST")
        return list(self._said), {each["config"]["name"]: each["state"]["last_seq"] for each in found["streams"]}


async def make_job(bus: Bus) -> None:
    """A job of ann's that waits, and one that has died."""
    position = await bus.api.call(f"STREAM.INFO.{SUBJECTS.events_stream}")
    assert position["state"]["last_seq"] == 0
    state = JobState(
        job_id=THEIRS,
        kind="chat",
        status=JobStatus.RUNNING,
        created=1,
        updated=1,
        tail=f"job.{THEIRS}",
        owner="user.ann",
        start="a-0",
    )
    await JobRecords(bus).create(state)
    job = Job(job_id=THEIRS, kind="chat", tail=state.tail, params={}, created=1, owner="user.ann")
    await DeadJobs(bus).keep(DeadJob(job=job, error="x", attempts=1, failed=2.0))


class Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: dict[str, Any]


async def ask(client: httpx.AsyncClient, call: Call, method: str, headers: dict[str, str], query: str = "") -> Answer:
    """The answer to `call`; of one that may have no end its head alone."""
    target = call.target + (f"{'&' if '?' in call.target else '?'}{query}" if query else "")
    more = {"content-type": "application/x-ndjson"} if call.lines else {}
    body = {"content": call.lines} if call.lines else {"json": call.json}
    async with client.stream(method, target, headers={**headers, **more}, **body) as answer:
        problem = answer.status_code >= 400 and "json" in answer.headers.get("content-type", "") and method != "HEAD"
        if problem:
            await answer.aread()
        return Answer(answer.status_code, answer.headers, answer.json() if problem else {})


def methods(call: Call) -> list[str]:
    return ["GET", "HEAD"] if call.method == "GET" else [call.method]


BAD = {
    "none": ({}, "", "missing"),
    "of another secret": (bearer(token("eve", secret="another secret of 32 bytes or more")), "", "signature"),
    "expired": (bearer(token("eve", seconds=-60, iat=int(time.time()) - 120)), "", "expired"),
    "no token at all": (bearer("eve"), "", "malformed"),
    "an unknown key": (bearer("tgk_shop_" + "A" * 43), "", "unknown"),
    "in the query": ({}, f"access_token={token('eve')}&token={token('eve')}", "missing"),
    "as a ticket": ({}, f"ticket={token('eve')}", "missing unknown"),  # streams alone read tickets
}

MAY_BE_GONE = {f"/api/ai/dead/{THEIRS}"}
"""It was tried again, by the call before."""


@pytest.mark.parametrize("name", SERVICES)
async def test_every_route_has_its_right(tmp_path: Path, name: str) -> None:
    async with nats_server(tmp_path) as nats, connected(nats.url, StreamLimits(identity=True)):
        async with service(nats.url, name) as running:
            assert set(routes_of(running.routes)) == {call.route for call in SERVICES[name]}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", SERVICES)
async def test_nothing_is_answered_without_a_good_token(tmp_path: Path, name: str, bad: str) -> None:
    headers, query, reason = BAD[bad]
    async with scene(tmp_path, name) as (client, traces):
        before = await traces.all()
        for call in SERVICES[name]:
            for method in methods(call):
                answer = await ask(client, call, method, headers, query)
                if call.needs == OPEN:
                    assert answer.status in (200, 503), (method, call)  # a worker whose model is not there is not ready
                    continue
                assert answer.status == 401, (method, call)
                assert answer.headers["www-authenticate"].startswith("Bearer"), (method, call)
                if "reason" in answer.body:  # OpenAI's shape has none
                    assert answer.body["reason"] in reason.split(), (method, call)
                assert token("eve")[:20] not in str(answer.body)
        for call in SERVICES[name]:
            if call.needs != OPEN:
                twice = [("authorization", f"Bearer {token('eve')}")] * 2
                refused = await client.request(call.method, call.target, headers=twice, json=call.json)
                assert refused.status_code == 400, call
        for target in {call.target for call in SERVICES[name]}:
            # For a browser, which asks before it sends a token: nothing is done for it.
            asked = await client.options(target, headers=headers)
            assert asked.status_code in (200, 204, 405), target
        for method in ("PUT", "PATCH", "POST", "TRACE", "QUERY", "GET"):
            assert (await client.request(method, "/nothing", headers=headers)).status_code == 401, method
        assert await traces.all() == before


@pytest.mark.parametrize("name", SERVICES)
async def test_a_good_token_without_the_right_gets_nowhere_and_one_with_it_does(tmp_path: Path, name: str) -> None:
    async with scene(tmp_path, name) as (client, traces):
        before = await traces.all()
        closed = [call for call in SERVICES[name] if call.needs not in (OPEN, ANY)]
        for call in closed:
            for method in methods(call):
                answer = await ask(client, call, method, bearer(without(call)))
                assert answer.status == call.refused, (method, call, answer)
                if call.refused == 403 and not call.target.startswith("/v1/"):
                    assert method == "HEAD" or answer.body["needed"] == call.needs, call
        assert await traces.all() == before
        for call in SERVICES[name]:
            if call.needs != OPEN:
                for method in methods(call):
                    answer = await ask(client, call, method, bearer(token("eve", **call.claims)))
                    assert answer.status not in (401, 403, 421), (method, call, answer)
                    assert answer.status != 404 or call.target in MAY_BE_GONE, (method, call)


@pytest.mark.parametrize("name", SERVICES)
async def test_whoever_brings_nothing_and_may_listen_may_do_nothing_else(tmp_path: Path, name: str) -> None:
    """They are asked who they are, with the right that is missing. Which jobs there are they are not told."""
    heard = ("topic:a.b", "broadcast")
    async with scene(tmp_path, name, auth_anonymous=heard) as (client, traces):
        before = await traces.all()
        for call in SERVICES[name]:
            listens = call.needs in (ANY, "subscribe topic:a.b") and call.target.startswith("/api/sse")
            if call.needs == OPEN or listens:
                continue
            for method in methods(call):
                answer = await ask(client, call, method, {})
                assert answer.status == 401, (method, call)
                assert answer.headers["www-authenticate"] == 'Bearer realm="tidegate"', (method, call)
                if "needed" in answer.body and call.refused == 403 and "tickets" not in call.target:
                    assert answer.body["needed"] == call.needs
        assert await traces.all() == before


def without(call: Call) -> str:
    """A token that has every right but the one that `call` needs."""
    rights: dict[str, Any] = {
        "subscribe": ["topic:other.>", "user:other", "client:*", "broadcast"],
        "publish": ["topic:other.>", "user:other", "client:*"],
        "jobs": {},
        "admin": sorted(ADMIN),
    }
    kind, _, name = call.needs.partition(" ")
    if kind == "admin":
        rights["admin"].remove(name)
    if kind == "jobs":
        del rights["jobs"]
    return token("eve", **rights)


@asynccontextmanager
async def scene(tmp_path: Path, name: str, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Traces]]:
    async with nats_server(tmp_path) as nats, connected(nats.url, StreamLimits(identity=True)) as bus:
        await make_job(bus)
        async with (
            service(nats.url, name, **settings) as running,
            httpx.AsyncClient(base_url=running.url, timeout=20) as client,
        ):
            yield client, Traces(bus)
