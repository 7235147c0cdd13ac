"""NATS has no room left: publishes are refused, and whoever operates it is told, once, by the log and by readiness."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.disk import small_disk
from tests.support.nats import nats_configured
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events import refusals
from tidegate_common.bus.events.refusals import Refusals
from tidegate_common.bus.events.writer import Message, PubAck, StreamWriter
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.requests.jetstream import JetStreamApi
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.patience import Patience
from tidegate_common.bus.wire import headers
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, NotStored, QueueFull

SUBJECTS = Subjects.of("tg")
LARGE = {"client_id": "a", "event_type": "n", "data": "x" * 500_000}


@pytest.mark.timeout(120)
async def test_a_full_disk_is_said_by_readiness_the_log_and_a_count_until_there_is_room_again(tmp_path: Path) -> None:
    """Every send was 503, all were ready, and no line said why. NATS itself says nothing to those who publish."""
    async with small_disk(tmp_path / "disk", 24) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (12 << 20))
        config = f'jetstream {{ store_dir: "{disk / "nats"}", max_file_store: 10G }}'
        port = free_port()
        async with nats_configured(tmp_path / "nats.conf", config, port) as nats:
            api = free_port()
            env = {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_PUBLISH_DEADLINE_SECONDS": "0.5"}
            async with service("publisher_api", api, env) as run:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api}", timeout=30) as client:

                    async def refused() -> bool:
                        return (await client.post("/api/sse/send", json=LARGE)).status_code == 503

                    await until(refused, "the disk is full", 60)
                    for _ in range(3):
                        assert (await client.post("/api/sse/send", json=LARGE)).status_code == 503
                    probe = await client.get("/readyz")
                    assert probe.status_code == 503
                    assert probe.json()["faults"] == {}
                    assert "may be full" in probe.json()["dependencies"]["TG_EVENTS"]
                    assert await counted(client, "unconfirmed") == 4
                    await until(lambda: run.said("publishes are refused"), "the log says it")
                    assert run.count("publishes are refused") == 1
                    ballast.unlink()
            assert not run.said("Traceback")
        async with nats_configured(tmp_path / "nats.conf", config, port):
            async with service("publisher_api", api, env, seconds=40):
                pass


@pytest.mark.timeout(120)
async def test_a_process_that_gets_no_publishes_finds_out_that_there_is_room_again(tmp_path: Path) -> None:
    """It is not ready, so that nobody sends it anything which would show that NATS stores again."""
    async with nats_configured(tmp_path / "nats.conf", f'jetstream {{ store_dir: "{tmp_path}/s" }}') as nats:
        api = free_port()
        env = {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_PUBLISH_DEADLINE_SECONDS": "0.5"}
        async with service("publisher_api", api, env) as run:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api}", timeout=30) as client:
                async with connect(nats.url, SUBJECTS, "hand") as bus:
                    call = JetStreamApi(bus).call
                    found = (await call("STREAM.INFO.TG_EVENTS"))["config"]
                    await call("STREAM.UPDATE.TG_EVENTS", {**found, "max_msg_size": 1000})
                    answer = await client.post("/api/sse/send", json=LARGE)
                    assert answer.status_code == 503

                async def ready() -> bool:
                    return (await client.get("/readyz")).status_code == 200

                await until(ready, "it is ready again", 30)
                assert run.said("publishes are stored again")
                assert (await client.post("/api/sse/send", json=LARGE)).status_code == 202
                assert await counted(client, "stream_refuses") == 1


@pytest.mark.timeout(120)
async def test_a_chat_whose_record_is_not_stored_is_told_as_an_event_is(tmp_path: Path) -> None:
    """A publisher-api that had chats alone answered 503 to each, was ready, and wrote no line: a job's record is stored
    before anything that was counted."""
    async with nats_configured(tmp_path / "nats.conf", f'jetstream {{ store_dir: "{tmp_path}/s" }}') as nats:
        api = free_port()
        async with service("publisher_api", api, {"TIDEGATE_NATS_URL": nats.url}) as run:
            async with (
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{api}", timeout=30) as client,
                connect(nats.url, SUBJECTS, "hand") as bus,
            ):
                call = JetStreamApi(bus).call
                found = (await call("STREAM.INFO.KV_TG_JOBS_STATE"))["config"]
                await call("STREAM.UPDATE.KV_TG_JOBS_STATE", {**found, "max_msg_size": 10})
                chat = {"prompt": "hello", "client_id": "ann"}
                assert (await client.post("/api/ai/chat", json=chat)).status_code == 503
                assert await counted(client, "stream_refuses") == 1
                assert run.count("publishes are refused") == 1

                async def again() -> bool:
                    return (await client.post("/api/ai/chat", json=chat)).status_code == 202

                await until(again, "publisher-api has changed it back", 30)

                async def said() -> bool:
                    return await again() and run.said("publishes are stored again")

                await until(said, "its end is said, once nothing was refused for some seconds", 30)


async def test_a_record_that_finds_no_room_makes_the_process_unready(tmp_path: Path) -> None:
    config = ACCOUNT.replace("STORE", str(tmp_path / "store"))
    async with nats_configured(tmp_path / "nats.conf", config) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        stream = {"name": "KV_TG_JOBS_STATE", "subjects": ["$KV.TG_JOBS_STATE.>"], "allow_rollup_hdrs": True}
        await JetStreamApi(bus).call("STREAM.CREATE.KV_TG_JOBS_STATE", stream)
        counts = Refusals()
        states = JobRecords(bus, Leaders(bus), counts)
        refused = 0
        for number in range(10):
            state = JobState(
                job_id=f"j{number}", kind="x", status=JobStatus.QUEUED, created=1, updated=1, error="x" * 100_000
            )
            try:
                await states.create(state)
            except BrokerUnavailable:
                refused += 1
        assert refused > 1
        assert {name: count for name, count in counts.counts.items() if count} == {refusals.STORAGE_FULL: refused}
        assert "storage is full" in (counts.of("KV_TG_JOBS_STATE") or "")


async def counted(client: httpx.AsyncClient, reason: str) -> int:
    text = (await client.get("/metrics")).text
    found = re.search(rf'^tidegate_publishes_refused_total{{.*reason="{reason}".*}} (\S+)$', text, re.M)
    assert found is not None, text
    return int(float(found[1]))


EVENTS = {"name": "TG_EVENTS", "subjects": ["tg.in.>"]}
JOBS = {"name": "TG_JOBS", "subjects": ["tg.jobs.>"], "discard": "new"}
ACCOUNT = """
jetstream { store_dir: "STORE" }
accounts { A { jetstream { max_file: 300K, max_mem: 300K }, users: [ { user: a, password: a } ] } }
no_auth_user: a
"""
PLAIN = 'jetstream { store_dir: "STORE" }'
LIMITED = 'jetstream { store_dir: "STORE", max_file_store: 300K, max_memory_store: 300K }'


@pytest.mark.parametrize(
    ("server", "stream", "reason", "error"),
    [
        (ACCOUNT, EVENTS, refusals.STORAGE_FULL, NotStored),
        (ACCOUNT, {**EVENTS, "storage": "memory"}, refusals.STORAGE_FULL, NotStored),
        (LIMITED, EVENTS, refusals.STORAGE_FULL, NotStored),
        (PLAIN, {**EVENTS, "max_bytes": 250_000, "discard": "new"}, refusals.STREAM_FULL, NotStored),
        (PLAIN, {**EVENTS, "max_msgs": 2, "discard": "new"}, refusals.STREAM_FULL, NotStored),
        (
            PLAIN,
            {**EVENTS, "max_msgs_per_subject": 2, "discard": "new", "discard_new_per_subject": True},
            refusals.STREAM_FULL,
            NotStored,
        ),
        (PLAIN, {**EVENTS, "max_msg_size": 100}, refusals.STREAM_REFUSES, NotStored),
        (PLAIN, {**JOBS, "max_msgs": 2}, refusals.STREAM_FULL, QueueFull),
        (PLAIN, {**JOBS, "max_bytes": 250_000}, refusals.STREAM_FULL, QueueFull),
    ],
    ids=[
        "account's file",
        "account's memory",
        "server's",
        "bytes",
        "messages",
        "per subject",
        "size",
        "queue",
        "queue's bytes",
    ],
)
async def test_each_kind_of_fullness_has_its_reason_and_is_refused_at_once(
    tmp_path: Path, server: str, stream: dict[str, Any], reason: str, error: type[Exception]
) -> None:
    """Some were tried again until the deadline, though NATS had said that it was full."""
    config = server.replace("STORE", str(tmp_path / "store"))
    async with nats_configured(tmp_path / "nats.conf", config) as nats:
        async with connect(nats.url, SUBJECTS, "test") as bus:
            await JetStreamApi(bus).call(f"STREAM.CREATE.{stream['name']}", stream)
            counts = Refusals()
            storing = StreamWriter(bus, Leaders(bus, Patience(deadline_seconds=20)), counts)
            subject = "tg.in.x" if stream is not JOBS and stream["name"] == "TG_EVENTS" else "tg.jobs.chat.0.x"
            loop, found = asyncio.get_running_loop(), []
            began = loop.time()
            for number in range(10):
                block = headers.block({"Nats-Msg-Id": f"m{number}"})
                found += await storing.store([Message(subject, b"x" * 100_000, block)])
            assert loop.time() - began < 15
            assert type(found[-1]) is error, found
            assert all(isinstance(each, PubAck | error) for each in found)
            refused = sum(isinstance(each, error) for each in found)
            assert {name: count for name, count in counts.counts.items() if count} == {reason: refused}
