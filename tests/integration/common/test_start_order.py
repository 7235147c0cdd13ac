"""publisher-api alone makes the streams: whoever starts before it waits for them, and says so."""

import logging
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.bus import SUBJECTS, connected
from tests.support.identity import SECRET, bearer, token
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import running, service
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.streams.definitions import StreamLimits, configs, made
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.upkeep import Upkeep
from tidegate_common.errors import BrokerUnavailable

WAITING = "waiting for publisher-api to make the stream: KV_TG_JOBS_DEAD, KV_TG_JOBS_STATE, TG_EVENTS, TG_JOBS"


def env(nats_url: str, port: int) -> dict[str, str]:
    return {
        "TIDEGATE_NATS_URL": nats_url,
        "TIDEGATE_PORT": str(port),
        "TIDEGATE_AI_BACKEND": "scripted",
        "TIDEGATE_DRAIN_SECONDS": "1",
    }


async def streams(bus: Bus) -> list[str]:
    return [info.config.name or "" for info in await bus.jetstream.streams_info()]


async def test_any_service_may_start_first_and_waits_for_publisher_api(tmp_path: Path) -> None:
    gateway, worker = free_port(), free_port()
    async with nats_server(tmp_path) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        async with (
            running(sys.executable, "-m", "gateway", env=env(nats.url, gateway)) as first,
            running(sys.executable, "-m", "ai_worker", env=env(nats.url, worker)) as second,
        ):
            for run in (first, second):
                await until(lambda run=run: run.said(WAITING), "it says what it waits for", 20)
            assert await streams(bus) == []
            async with service("publisher_api", port := free_port(), env(nats.url, port)), httpx.AsyncClient() as http:

                async def ready() -> bool:
                    try:
                        answers = [await http.get(f"http://127.0.0.1:{each}/readyz") for each in (gateway, worker)]
                    except httpx.TransportError:
                        return False
                    return all(answer.status_code == 200 for answer in answers)

                await until(ready, "all are ready", 20)
            for run in (first, second):
                assert run.count("waiting for publisher-api") == 1, run.output
                assert run.said("all streams are there"), run.output


async def test_a_service_without_streams_ends_its_start_with_what_is_to_be_done(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        upkeep = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=False, all_needed=False)
        with pytest.raises(BrokerUnavailable, match="publisher-api has not made TG_EVENTS yet: start it"):
            await upkeep.start(seconds=0)
        assert await streams(bus) == []


async def test_that_streams_are_made_one_by_one_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with nats_server(tmp_path) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        upkeep = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=False, all_needed=True)
        await upkeep.look()
        for config in configs(SUBJECTS, StreamLimits()):
            await made(bus.api, config)
            await upkeep.look()
        await bus.jetstream.delete_stream("TG_JOBS")
        await upkeep.look()
    said = [line for line in caplog.messages if "publisher-api" in line or "all streams" in line]
    assert said[0] == WAITING
    assert said[1].startswith("all streams are there")
    assert said[2:] == ["waiting for publisher-api to make the stream: TG_JOBS"]


async def test_a_publisher_api_of_the_other_mode_is_said_to_be_what_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is there, and makes no buckets of identity: whoever reads that it has to be started finds it running."""
    caplog.set_level("INFO")
    async with nats_server(tmp_path) as nats, connected(nats.url) as bus:
        upkeep = Upkeep(bus, StreamLimits(identity=True), Leaders(bus), keeps=False, all_needed=False)
        with pytest.raises(
            BrokerUnavailable, match=r"KV_TG_TICKETS yet: .* \(it makes these with TIDEGATE_AUTH=token\)"
        ):
            await upkeep.start(seconds=0)
        (said,) = [text for text in caplog.messages if text.startswith("waiting for publisher-api")]
        assert said.endswith("KV_TG_TICKETS (it makes these with TIDEGATE_AUTH=token)")


async def test_a_stream_that_goes_is_named_by_readiness_until_publisher_api_has_made_it_again(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        keeper = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=True, all_needed=True)
        await keeper.start()
        other = Upkeep(bus, StreamLimits(), Leaders(bus), keeps=False, all_needed=True)
        await other.start(seconds=0)
        await bus.jetstream.delete_stream("TG_JOBS")
        await other.look()
        (lack,) = await other.lacks()
        assert (lack.stream, lack.needed) == ("TG_JOBS", True)
        assert lack.reason == "the stream TG_JOBS does not exist: waiting for publisher-api to make it"
        await keeper.look()
        assert await other.look() == set()
        assert await other.lacks() == []


async def test_buckets_of_identity_that_are_deleted_get_back_what_was_in_them(tmp_path: Path) -> None:
    """Else no gateway could start any more, and whoever was revoked could come again."""
    eve, operator = token("eve"), token("op", admin=["revoke"])
    port, gateway = free_port(), free_port()
    async with nats_server(tmp_path) as nats, connect(nats.url, SUBJECTS, "test") as bus:
        asks = {"TIDEGATE_AUTH": "token", "TIDEGATE_AUTH_SECRET": SECRET}
        async with (
            service("publisher_api", port, env(nats.url, port) | asks),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=bearer(operator)) as http,
        ):
            assert (await http.post("/api/auth/revocations", json={"sub": "eve"})).status_code == 200
            for bucket in (SUBJECTS.auth_bucket, SUBJECTS.revoked_bucket):
                await bus.jetstream.delete_stream(f"KV_{bucket}")
            command = (sys.executable, "-m", "gateway")
            async with running(*command, env=env(nats.url, gateway) | asks) as run:
                await until(lambda: run.said("is up at"), "a gateway starts", 20)
                refused = await http.get(f"http://127.0.0.1:{gateway}/api/sse", headers=bearer(eve))
                assert (refused.status_code, refused.json()["reason"]) == (401, "revoked")
                assert (await http.get("/api/auth/revocations")).json()["total"] == 1
