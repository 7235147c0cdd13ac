"""Jobs that are to end when nobody listens to them any more, with a real gateway that knows who does."""

from pathlib import Path

from tests.integration.ai_worker.support import SLOW, desk, worker
from tests.support.gateway import open_stream, running_gateway
from tests.support.waiting import until
from tidegate_common.contract.jobs import JobStatus

LONG_PROMPT = {"messages": [{"role": "user", "content": "[long]"}]}


async def test_a_job_ends_when_its_last_listener_has_been_gone_for_its_grace_period(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), running_gateway(nats.url) as gateway, worker(nats, SLOW):
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
    async with desk(tmp_path) as (nats, asking), running_gateway(nats.url) as gateway, worker(nats, SLOW):
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
