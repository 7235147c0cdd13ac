"""NATS hangs for a few seconds and goes on: nothing of ours that gave up meanwhile may cost the connection its ears."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import open_stream, running_gateway
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.runtime.tasks import end

HANGS_SECONDS = 6.0
WORKER = {
    "TIDEGATE_AI_BACKEND": "scripted",
    "TIDEGATE_SCRIPTED_THINK_SECONDS": "0.01",
    "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.001",
}
POLL_SECONDS = 0.5


class Poller:
    """Asks for `/readyz` all the time, as a load balancer does. `answers` are the statuses, in order."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[int] = []

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                self.answers.append((await client.get(f"{self._url}/readyz")).status_code)
                await asyncio.sleep(POLL_SECONDS)


async def test_readiness_is_polled_while_nats_hangs_and_all_works_as_soon_as_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A probe that gave up cancelled a future that the NATS client still held. The PONG that came late then ended the
    client's reader for good: chat and completions were dead for 20 seconds, and readiness said 200 all the while.
    """
    async with (
        nats_server(tmp_path) as server,
        running_publisher(server.url) as (publisher, _),
        running_gateway(server.url) as gateway,
        service("ai_worker", port := free_port(), {**WORKER, "TIDEGATE_NATS_URL": server.url}),
        httpx.AsyncClient(base_url=gateway.url, timeout=30) as front,
        open_stream(gateway.url, {"client_id": "ann"}) as stream,
    ):
        await stream.connected()
        pollers = [Poller(gateway.url), Poller(str(publisher.base_url)), Poller(f"http://127.0.0.1:{port}")]
        polling = [asyncio.create_task(each.run()) for each in pollers]
        try:
            await until(lambda: all(each.answers for each in pollers), "readiness was asked for")
            assert all(each.answers == [200] * len(each.answers) for each in pollers)
            await server.pause()
            await asyncio.sleep(HANGS_SECONDS)  # the input itself: NATS hangs for so long
            server.go_on()
            async with asyncio.timeout(10):
                states = JobRecords(gateway.bus)
                chat = await publisher.post("/api/ai/chat", json={"client_id": "ann", "prompt": "hello"})
                assert chat.status_code == 202, chat.text
                assert (await states.get(chat.json()["job_id"])).job_id
                sent = await publisher.post(
                    "/api/sse/send", json={"client_id": "ann", "event_type": "note", "data": 1, "receipt": True}
                )
                assert sent.status_code == 202, sent.text
                assert sent.json()["delivered"] == 1
                assert (await stream.next("note")).data == "1"
                asked = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
                answer = await front.post("/v1/chat/completions", json=asked)
                assert answer.status_code == 200, answer.text
            assert all(503 in each.answers for each in pollers), "readiness was false while requests failed"
            await until(lambda: all(each.answers[-1] == 200 for each in pollers), "both are ready again")
        finally:
            await end(polling)
    assert "never retrieved" not in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
