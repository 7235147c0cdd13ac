"""Streams of Tidegate's names that it has not made so: each service says in what they differ, and is not ready."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.support.nats import nats_configured, nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, running, service
from tests.support.waiting import until
from tidegate_common.bus.connection import connect
from tidegate_common.bus.requests.jetstream import JetStreamApi
from tidegate_common.bus.streams.definitions import StreamLimits, configs, ensure_streams
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.upkeep import LEAST_PAYLOAD, Upkeep
from tidegate_common.contract.answers import AiResponse
from tidegate_common.contract.subjects import Subjects

SUBJECTS = Subjects.of("tg")
SERVICES = ("publisher_api", "gateway", "ai_worker")
EVENTS = {"name": "TG_EVENTS", "subjects": ["tg.in.>"], "storage": "file"}


class Probed:
    """The three services, started on what there is, and what their /readyz says."""

    def __init__(self, runs: dict[str, Running], ports: dict[str, int]) -> None:
        self.runs = runs
        self._ports = ports

    async def readyz(self, name: str) -> tuple[int, dict[str, str]]:
        async with httpx.AsyncClient(timeout=10) as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self._ports[name]}/readyz")
            except httpx.TransportError:
                return 0, {}
        return answer.status_code, answer.json()["dependencies"]

    async def until_ready(self, *names: str) -> None:
        async def ready() -> bool:
            return all([(await self.readyz(name))[0] == 200 for name in names])

        await until(ready, f"{names} are ready", 30)

    async def until_unready(self, stream: str, words: str, *names: str) -> None:
        async def unready() -> bool:
            found = [await self.readyz(name) for name in names]
            return all(status == 503 and words in lacks.get(stream, "") for status, lacks in found)

        await until(unready, f"{names} say {words}", 30)


@asynccontextmanager
async def services(url: str) -> AsyncIterator[Probed]:
    ports = {name: free_port() for name in SERVICES}
    async with AsyncExitStack() as stack:
        runs = {}
        for name, port in ports.items():
            env = {"TIDEGATE_NATS_URL": url, "TIDEGATE_PORT": str(port), "TIDEGATE_AI_BACKEND": "scripted"}
            runs[name] = await stack.enter_async_context(running(sys.executable, "-m", name, env=env))
        yield Probed(runs, ports)


async def made_by_hand(url: str, *made: dict[str, Any]) -> None:
    async with connect(url, SUBJECTS, "hand") as bus:
        for config in made:
            await JetStreamApi(bus).call(f"STREAM.CREATE.{config['name']}", config)


async def config_of(url: str, stream: str) -> dict[str, Any]:
    async with connect(url, SUBJECTS, "hand") as bus:
        return dict((await JetStreamApi(bus).call(f"STREAM.INFO.{stream}"))["config"])


MEMORY = ([{**EVENTS, "storage": "memory"}], ("storage is memory, not file", "republish is none"))
BUCKET = ([{"name": "KV_TG_JOBS_STATE", "subjects": ["$KV.TG_JOBS_STATE.>"], "storage": "memory"}], ("storage",))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        MEMORY,
        (
            [{"name": "OTHER", "subjects": ["tg.in.>"]}, {"name": "TG_EVENTS", "mirror": {"name": "OTHER"}}],
            ("mirror is OTHER, not none", "subjects is"),
        ),
        (
            [{"name": "OTHER", "subjects": ["o.>"]}, {**EVENTS, "sources": [{"name": "OTHER"}]}],
            ("sources is OTHER, not none",),
        ),
        ([{**EVENTS, "retention": "workqueue"}], ("retention is workqueue, not limits",)),
        ([{"name": "TG_JOBS", "subjects": ["tg.jobs.>"]}], ("retention is limits, not workqueue", "subjects is")),
        BUCKET,
    ],
    ids=["memory", "mirror", "sources", "retention", "queue", "bucket"],
)
async def test_a_stream_that_no_update_makes_ours_is_named_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, made: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    """Services were ready and dead: they stored into memory, heard nothing back, or could make no consumer."""
    async with nats_server(tmp_path) as server, connect(server.url, SUBJECTS, "hand") as bus:
        await made_by_hand(server.url, *made)
        stream = made[-1]["name"]
        before = await config_of(server.url, stream)
        for keeps in (True, False):
            upkeep = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=keeps, all_needed=True)
            caplog.clear()
            for _ in range(2):
                await upkeep.look()
                (lack,) = await upkeep.lacks()
                assert (lack.stream, lack.needed, lack.passing) == (stream, True, False)
            (said,) = [line for line in caplog.messages if f"{stream} is not as Tidegate makes it" in line]
            assert all(word in lack.reason and word in said for word in words)
        assert await config_of(server.url, stream) == before


@pytest.mark.parametrize(("made", "words"), [MEMORY, BUCKET], ids=["memory", "bucket"])
async def test_a_stream_that_no_update_makes_ours_is_said_by_each_service_which_is_unready_if_it_needs_it(
    tmp_path: Path, made: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    async with nats_server(tmp_path) as server:
        await made_by_hand(server.url, *made)
        stream = made[-1]["name"]
        async with services(server.url) as probed:
            needing = SERVICES if stream == "TG_EVENTS" else ("publisher_api", "ai_worker")
            for word in words:
                await probed.until_unready(stream, word, *needing)
            if stream != "TG_EVENTS":
                await probed.until_ready("gateway")
                assert stream in (await probed.readyz("gateway"))[1]
            for name in SERVICES:
                said = [line for line in probed.runs[name].output if f"{stream} is not as Tidegate makes it" in line]
                assert len(said) == 1
                assert all(word in said[0] for word in words)


async def test_a_stream_that_can_be_changed_is_and_each_change_is_said_before(tmp_path: Path) -> None:
    """Whoever had made the stream with other limits or other subjects lost them without a word."""
    async with nats_server(tmp_path) as server:
        odd = {**EVENTS, "subjects": ["tg.in.>", "more.>"], "max_age": 60_000_000_000, "description": "mine"}
        await made_by_hand(server.url, odd)
        async with services(server.url) as probed:
            await probed.until_ready(*SERVICES)
            run = probed.runs["publisher_api"]
            for words in (
                "republish is none, not from tg.in.> to tg.out.>",
                "subjects is tg.in.>, more.>, not tg.in.>",
                "max_age is 60 s, not 86400 s",
                "allow_msg_ttl is off, not on",
            ):
                assert run.count(f"changing the stream TG_EVENTS: {words}") == 1, "\n".join(run.output)
            assert not run.said("description")
            found = await config_of(server.url, "TG_EVENTS")
            assert (found["subjects"], found["description"]) == (["tg.in.>"], "mine")
            # What somebody changes later is changed back, but for how much is kept.
            async with connect(server.url, SUBJECTS, "hand") as bus:
                del found["republish"]
                edited = {**found, "max_bytes": 1 << 20}
                await JetStreamApi(bus).call("STREAM.UPDATE.TG_EVENTS", edited)

                async def back() -> bool:
                    return "republish" in await config_of(server.url, "TG_EVENTS")

                await until(back, "it is republished again", 20)
            assert (await config_of(server.url, "TG_EVENTS"))["max_bytes"] == 1 << 20
            await probed.until_ready(*SERVICES)


async def test_what_somebody_changes_back_at_once_is_said_and_not_fought_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each look would change it again, and say so, for ever; so it would where a server does not take the change."""
    caplog.set_level("WARNING")
    async with nats_server(tmp_path) as server, connect(server.url, SUBJECTS, "hand") as bus:
        api = JetStreamApi(bus)
        upkeep = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=True, all_needed=True)
        await upkeep.look()
        for _ in range(4):
            found = await config_of(server.url, "TG_EVENTS")
            found.pop("republish", None)
            await api.call("STREAM.UPDATE.TG_EVENTS", found)
            await upkeep.look()
        assert sum("changing the stream TG_EVENTS" in line for line in caplog.messages) == 1
        assert sum("republish is none" in line and "is not as" in line for line in caplog.messages) == 1
        (lack,) = await upkeep.lacks()
        assert (lack.stream, lack.passing, lack.needed) == ("TG_EVENTS", False, True)


async def test_copies_that_no_cluster_can_hold_are_said_and_keep_nobody_from_working(tmp_path: Path) -> None:
    """With streams that are there the process runs on with the copies that it has, and its other changes are made."""
    async with nats_server(tmp_path) as server:
        await made_by_hand(server.url, EVENTS)
        async with connect(server.url, SUBJECTS, "hand") as bus:
            await ensure_streams(bus, StreamLimits(), update=False)
        port = free_port()
        async with service("publisher_api", port, {"TIDEGATE_NATS_URL": server.url, "TIDEGATE_REPLICAS": "3"}) as run:
            for stream in ("TG_EVENTS", "KV_TG_JOBS_STATE"):
                words = f"the stream {stream} keeps other than the settings say, and NATS does not change it"
                assert run.count(words) == 1
        assert (await config_of(server.url, "TG_EVENTS"))["republish"]["dest"] == "tg.out.>"


async def test_a_sealed_stream_is_said(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, services(server.url) as probed:
        await probed.until_ready(*SERVICES)
        async with connect(server.url, SUBJECTS, "hand") as bus:
            found = await config_of(server.url, "TG_EVENTS")
            await JetStreamApi(bus).call("STREAM.UPDATE.TG_EVENTS", {**found, "sealed": True})
        await probed.until_unready("TG_EVENTS", "sealed is on, not off", *SERVICES)


async def test_a_foreign_consumer_of_the_job_queue_is_named_until_it_is_gone(tmp_path: Path) -> None:
    """It takes jobs away, or keeps the workers' own consumers from being made: they were ready, and idle for ever."""
    async with nats_server(tmp_path) as server, connect(server.url, SUBJECTS, "hand") as bus:
        await ensure_streams(bus, StreamLimits(), update=True)
        api = JetStreamApi(bus)
        consumer = {"stream_name": "TG_JOBS", "config": {"durable_name": "mine", "ack_policy": "explicit"}}
        await api.call("CONSUMER.DURABLE.CREATE.TG_JOBS.mine", consumer)
        async with services(server.url) as probed:
            await probed.until_unready("TG_JOBS", "nats consumer rm TG_JOBS mine", "publisher_api", "ai_worker")
            await probed.until_ready("gateway")
            await api.call("CONSUMER.DELETE.TG_JOBS.mine")
            await probed.until_ready(*SERVICES)
            for name in ("publisher_api", "ai_worker"):
                run = probed.runs[name]
                assert run.count("consumers that are not Tidegate's (mine)") == 1
                assert run.said("no consumers any more that are not Tidegate's")


async def test_a_worker_whose_consumer_is_somebody_elses_is_not_ready_and_says_so(tmp_path: Path) -> None:
    """By its name it was Tidegate's, and NATS makes no consumer that is asked of one that pushes: workers stayed ready,
    and idle for ever."""
    async with nats_server(tmp_path) as server, connect(server.url, SUBJECTS, "hand") as bus:
        await ensure_streams(bus, StreamLimits(), update=True)
        api = JetStreamApi(bus)
        made = {"durable_name": "workers-0", "ack_policy": "explicit", "filter_subject": "tg.jobs.*.0.>"}
        pushing = {"stream_name": "TG_JOBS", "config": {**made, "deliver_subject": "elsewhere"}}
        await api.call("CONSUMER.DURABLE.CREATE.TG_JOBS.workers-0", pushing)
        async with services(server.url) as probed:
            run = probed.runs["ai_worker"]
            await until(lambda: run.said("nats consumer rm TG_JOBS workers-0"), "the log says it", 30)
            assert (await probed.readyz("ai_worker"))[0] == 503
            assert run.count("nats consumer rm TG_JOBS workers-0") == 1
            await api.call("CONSUMER.DELETE.TG_JOBS.workers-0")
            await probed.until_ready(*SERVICES)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_server_whose_messages_are_too_small_is_refused_with_what_is_needed(tmp_path: Path, name: str) -> None:
    """All ran, and refused every event as over a limit of less than nothing bytes."""
    text = f'max_payload: 3000\njetstream {{ store_dir: "{tmp_path / "store"}" }}'
    async with nats_configured(tmp_path / "nats.conf", text) as server:
        env = {"TIDEGATE_NATS_URL": server.url, "TIDEGATE_PORT": "0", "TIDEGATE_AI_BACKEND": "scripted"}
        async with running(sys.executable, "-m", name, env=env) as run:
            async with asyncio.timeout(20):
                assert await run.process.wait() == 1
            await until(lambda: run.said("max_payload is 3000 bytes, and Tidegate needs at least 16384"), "it says why")


@pytest.mark.parametrize(
    ("name", "jetstream", "words"),
    [
        *((name, False, "JetStream has to be on (nats-server -js)") for name in SERVICES),
        ("publisher_api", True, "TIDEGATE_REPLICAS needs as many servers"),  # it alone makes streams
    ],
)
async def test_what_a_server_alone_can_never_have_ends_the_start_at_once(
    tmp_path: Path, name: str, jetstream: bool, words: str
) -> None:
    """A cluster may have no leader yet, and is waited for; here nothing is to come."""
    async with nats_server(tmp_path, jetstream=jetstream) as server:
        env = {"TIDEGATE_NATS_URL": server.url, "TIDEGATE_PORT": "0", "TIDEGATE_REPLICAS": "3"}
        async with running(sys.executable, "-m", name, env=env | {"TIDEGATE_AI_BACKEND": "scripted"}) as run:
            async with asyncio.timeout(20):
                assert await run.process.wait() == 1
            await until(lambda: run.said(words), "it says why")


def test_the_least_payload_holds_an_event_of_what_a_worker_joins() -> None:
    event = AiResponse(job_id="0" * 32, index=1 << 31, content="\x1f" * 2_000, candidate=127)
    assert len(msgspec.json.encode(event)) + 4_096 <= LEAST_PAYLOAD


def test_the_streams_are_four() -> None:
    assert [config["name"] for config in configs(SUBJECTS, StreamLimits())] == [
        "TG_EVENTS",
        "TG_JOBS",
        "KV_TG_JOBS_STATE",
        "KV_TG_JOBS_DEAD",
    ]
