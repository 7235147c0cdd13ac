"""Jobs that are to end when nobody listens to them any more, with a real gateway that knows who does."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from ai_worker.listeners import all_gone
from tests.integration.ai_worker.support import SLOW, desk, worker
from tests.stress.proxy import Cut, FaultProxy, fault_proxy
from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.ports import free_port
from tests.support.processes import Running, paused, service
from tests.support.waiting import until
from tests.support.working import some_job
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.gateways import AllGateways, Count
from tidegate_common.bus.requests.roll import DOUBT_SECONDS, SILENCE_SECONDS
from tidegate_common.contract.jobs import Job, JobStatus, OnDisconnect
from tidegate_common.runtime.tasks import end

LONG_PROMPT = {"messages": [{"role": "user", "content": "[long]"}]}


SURE = {**SLOW, "TIDEGATE_AI_DOUBT_SECONDS": "0"}


async def test_a_job_ends_when_its_last_listener_has_been_gone_for_its_grace_period(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), running_gateway(nats.url) as gateway, worker(nats, SURE):
        leaving = {"on_disconnect": "cancel", "grace_seconds": 0.5}
        async with open_stream(gateway.url, {"client_id": "ann"}) as stream:
            await stream.connected()
            await asking.put("j1", "chat", LONG_PROMPT, **leaving)
            await asking.put("j2", "chat", LONG_PROMPT)
            await until(lambda: len(asking.text("j1")) > 200, "it goes on for longer than its grace period")
        last = await asking.end("j1", 10)
        assert last.data["finish_reason"] == "cancelled"
        assert last.data["usage"]["completion_tokens"] > 0
        await asking.state("j1", JobStatus.CANCELLED)
        assert (await asking.states.get("j2")).status is JobStatus.RUNNING, "the other was not to be ended"
        await asking.cancel("j2")
        await asking.end("j2")


async def test_a_listener_that_comes_back_within_the_grace_period_keeps_the_job(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), running_gateway(nats.url) as gateway, worker(nats, SURE):
        leaving = {"on_disconnect": "cancel", "grace_seconds": 3}
        async with open_stream(gateway.url, {"client_id": "ann"}) as stream:
            await stream.connected()
            await asking.put("j1", "chat", LONG_PROMPT, **leaving)
            await until(lambda: len(asking.text("j1")) > 50, "some text")
        before = len(asking.text("j1"))
        async with open_stream(gateway.url, {"client_id": "ann"}) as stream:
            await stream.connected()
            await until(lambda: len(asking.text("j1")) > before + 500, "it goes on for longer than its grace period")
            assert (await asking.states.get("j1")).status is JobStatus.RUNNING
            await asking.cancel("j1")
            await asking.end("j1")


class Counted(AllGateways):
    """Counts how often it was looked for listeners."""

    looks = 0

    async def listeners(self, tail: str, wait_seconds: float, job_id: str) -> Count:
        found = await super().listeners(tail, wait_seconds, job_id)
        self.looks += 1
        return found


class Watched:
    """A job with a listener at a gateway that is a process of its own, and a worker's eye on it.

    `later` makes time pass for what the worker knows of gateways. Without a grace period, one look that finds nobody
    ends it.
    """

    def __init__(self, bus: Bus, gateway: Running, link: FaultProxy) -> None:
        self.gateway = gateway
        self.link = link
        self._ahead = 0.0
        self.gateways = Counted(bus, lambda: time.monotonic() + self._ahead)
        self._job: Job = replace(some_job("j1", "client.ann", ""), on_disconnect=OnDisconnect.CANCEL, grace_seconds=0)
        self.gone: asyncio.Task[None] | None = None

    def later(self, seconds: float) -> None:
        self._ahead += seconds

    async def begin(self) -> None:
        """The worker has known the gateways for long, and sees that the job has a listener."""
        self.later(DOUBT_SECONDS)
        await until(self.gateways.live.now, "the gateway is heard")
        assert (await self.gateways.listeners("client.ann", 5, "j1")) == (1, True)
        self.gone = asyncio.create_task(all_gone(self.gateways, self._job))

    async def still_there(self) -> None:
        """After two whole looks more."""
        assert self.gone is not None
        since = self.gateways.looks
        await until(lambda: self.gateways.looks >= since + 3 or self.gone.done(), "it is looked for")
        assert not self.gone.done(), "a job was cancelled whose client may be there"

    async def aclose(self) -> None:
        if self.gone is not None:
            await end([self.gone])


@asynccontextmanager
async def watched(data: Path) -> AsyncIterator[Watched]:
    async with broker(data) as (nats, bus), fault_proxy(nats.port) as link:
        port = free_port()
        async with service("gateway", port, {"TIDEGATE_NATS_URL": f"nats://127.0.0.1:{link.port}"}) as gateway:
            async with open_stream(f"http://127.0.0.1:{port}", {"client_id": "ann"}) as stream:
                await stream.connected()
                found = Watched(bus, gateway, link)
                try:
                    await found.begin()
                    yield found
                finally:
                    await found.aclose()


async def test_a_gateway_that_is_paused_keeps_its_clients_jobs_and_counts_again_when_it_goes_on(tmp_path: Path) -> None:
    """It was forgotten after three seconds, and the job cancelled while its client was connected."""
    async with watched(tmp_path) as job:
        async with paused(job.gateway):
            job.later(SILENCE_SECONDS)
            await job.still_there()
            job.later(DOUBT_SECONDS - 2 * SILENCE_SECONDS)
            await job.still_there()
        await until(lambda: not job.gateways.live.doubted, "it speaks again")
        assert (await job.gateways.listeners("client.ann", 5, "j1")) == (1, True)


async def test_a_gateway_that_is_cut_off_from_nats_keeps_its_clients_jobs(tmp_path: Path) -> None:
    """A stream outlives that for up to a minute, but the job was cancelled after three seconds."""
    async with watched(tmp_path) as job:
        job.link.refusing = True
        job.link.cut_all(Cut.RST)
        job.later(SILENCE_SECONDS)
        await job.still_there()
        job.link.refusing = False
        await until(lambda: not job.gateways.live.doubted, "it is back")
        await job.still_there()


async def test_the_clients_of_a_killed_gateway_have_a_minute_to_come_back_elsewhere(tmp_path: Path) -> None:
    async with watched(tmp_path) as job:
        await job.gateway.stop(signal.SIGKILL)
        job.later(SILENCE_SECONDS)
        await job.still_there()
        job.later(DOUBT_SECONDS)
        assert job.gone is not None
        await asyncio.wait_for(job.gone, 5)


async def test_a_gateway_that_is_stopped_in_order_is_no_doubt(tmp_path: Path) -> None:
    async with watched(tmp_path) as job:
        await job.gateway.stop()
        assert job.gone is not None
        await asyncio.wait_for(job.gone, 5)


async def test_who_has_not_heard_the_gateways_for_long_enough_does_not_know_that_nobody_is_there(
    tmp_path: Path,
) -> None:
    """A gateway that had been cut off before a worker came, or came back to NATS, was nobody's for that worker."""
    async with broker(tmp_path) as (_, bus):
        now = [0.0]
        gateways = AllGateways(bus, lambda: now[0])
        now[0] = DOUBT_SECONDS - 1
        assert await gateways.presence("client.ann", 5, "j1") == (0, True)
        assert await gateways.listeners("client.ann", 5, "j1") == (0, False)
        now[0] = DOUBT_SECONDS
        assert await gateways.listeners("client.ann", 5, "j1") == (0, True)
