"""Who may watch a job: its owner, whom it addresses, and who has all jobs. To anybody else there is no such job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import RunningGateway, open_stream, running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.ids import EventId, new_job_id
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.contract.subjects import client_tail, user_tail

NONE = "0" * 32


@asynccontextmanager
async def asked(data: Path, **settings: Any) -> AsyncIterator[tuple[RunningGateway, Bus]]:
    async with broker(data) as (server, bus), running_gateway(server.url, **AUTH, **settings) as running:
        yield running, bus


async def made(bus: Bus, owner: str, tail: str = "", start: str | None = None) -> str:
    """A job, whose id is given."""
    job_id = new_job_id()
    position = await History(bus).position()
    state = JobState(
        job_id=job_id,
        kind="chat",
        status=JobStatus.RUNNING,
        created=1,
        updated=1,
        owner=owner,
        tail=tail or f"job.{job_id}",
        start=str(EventId(position.epoch, position.last)) if start is None else start,
    )
    await JobRecords(bus).create(state)
    return job_id


async def status(running: RunningGateway, job_id: str, headers: dict[str, str]) -> int:
    async with httpx.AsyncClient() as client:
        async with client.stream("GET", f"{running.url}/api/sse/jobs/{job_id}", headers=headers) as response:
            return response.status_code


@BOTH_PATHS
async def test_a_job_is_its_owners_and_whom_it_addresses(tmp_path: Path, streams: str) -> None:
    async with asked(tmp_path, streams=streams) as (running, bus):
        ann, bob = bearer(token("ann")), bearer(token("bob"))
        boss = bearer(token("boss", subscribe=["jobs:*"]))
        watching = bearer(token("eve", subscribe=["user:ann", "client:*", "topic:>", "broadcast"]))
        async with open_stream(running.url, None, ann) as stream:
            client_id = (await stream.connected())["client_id"]
        laptop = bearer(token("bob", client="laptop"))
        for job_id, may, may_not in (
            (await made(bus, user_tail("ann")), [ann, boss], [bob, watching]),
            (await made(bus, user_tail("bob"), user_tail("ann")), [ann, bob, boss], [watching]),
            (await made(bus, "key.shop.ann", client_tail(client_id)), [ann, boss], [bob, watching]),
            (await made(bus, "key.shop", client_tail("laptop")), [laptop, boss], [ann, bob, watching]),
            (await made(bus, "address.127", "topic.a"), [boss], [ann, bob, watching]),
            (await made(bus, "", "broadcast"), [boss], [ann, bob, watching]),
        ):
            for headers in may:
                assert await status(running, job_id, headers) == 200
            for headers in may_not:
                assert await status(running, job_id, headers) == 404
            assert await status(running, job_id, {}) == 401


@BOTH_PATHS
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_anothers_job_is_answered_as_none_is(tmp_path: Path, streams: str, method: str) -> None:
    """With the same words, and after the same questions to NATS: nothing tells that it is there."""
    async with asked(tmp_path, streams=streams) as (running, bus):
        theirs = [
            await made(bus, user_tail("bob")),
            await made(bus, user_tail("bob"), user_tail("bob"), start=""),
            await made(bus, "anonymous"),
        ]
        await bus.client.publish("$KV.TG_JOBS_STATE.unreadable", b"{")
        questions: list[bytes] = []
        bus.client.subscribe_direct("$JS.API.>", lambda subject, *_: questions.append(subject))
        answers = set()
        async with httpx.AsyncClient() as client:
            for job_id in (NONE, *theirs, "unreadable"):
                await bus.round_trip()
                questions.clear()
                url = f"{running.url}/api/sse/jobs/{job_id}?last_event_id=x-1"
                response = await client.request(method, url, headers=bearer(token("ann")))
                await bus.round_trip()
                problem = {**response.json(), "trace_id": ""} if response.content else {}
                fields = {**response.headers, "date": "", "content-length": ""}
                answers.add((response.status_code, repr(problem).replace(job_id, "ID"), repr(fields), len(questions)))
        assert len(answers) == 1
        assert next(iter(answers))[0] == 404
