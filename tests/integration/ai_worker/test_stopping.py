import signal
import time
from pathlib import Path

import httpx
from msgspec.structs import replace

from ai_worker.models.scripted import ANSWERS
from tests.integration.ai_worker.support import FAST, SLOW, desk, office, worker
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.contract.jobs import JobStatus


async def test_a_job_cancelled_while_it_waits_ends_without_a_word(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        await asking.ask("j1")
        await asking.cancel("j1")
        async with worker(nats):
            last = await asking.end("j1")
            assert asking.of("j1") == [last]
            assert last.data["finish_reason"] == "cancelled"
            assert last.data["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}
            await asking.state("j1", JobStatus.CANCELLED)
            await asking.queue_empty()


async def test_a_cancel_stops_an_answer_in_the_middle_and_nothing_follows(tmp_path: Path) -> None:
    announced = {**SLOW, "TIDEGATE_AI_ACK_SECONDS": "120"}  # the worker looks at the record after a third of it
    async with office(tmp_path, announced) as desk:
        await desk.ask("j1", "[long]")
        await until(lambda: len(desk.text("j1")) > 5, "some text")
        await desk.cancel("j1")
        await desk.cancel("j1")
        last = await desk.end("j1", 3)
        assert last.data["finish_reason"] == "cancelled"
        assert last.data["usage"]["completion_tokens"] == last.data["index"]
        assert last.data["usage"]["prompt_tokens"] == len("[long]"), "known before the end"
        await desk.state("j1", JobStatus.CANCELLED)
        await desk.queue_empty()
        await desk.ask("j2")
        await desk.end("j2")
        assert desk.of("j1")[-1] == last, "nothing came after the last event while another job ran"


async def test_a_cancel_whose_announcement_was_lost_is_seen_in_the_record(tmp_path: Path) -> None:
    async with office(tmp_path, {**SLOW, "TIDEGATE_AI_ACK_SECONDS": "1.5"}) as desk:
        await desk.ask("j1", "[long]")
        await until(lambda: len(desk.text("j1")) > 5, "some text")
        await desk.states.change("j1", lambda state: replace(state, cancel=True))
        assert (await desk.end("j1", 5)).data["finish_reason"] == "cancelled"


async def test_a_stopped_worker_hands_its_job_back_and_another_ends_it(tmp_path: Path) -> None:
    """It once took back what it had given: its last request for a job was still open. That cost an attempt."""
    env = {**SLOW, "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.05", "TIDEGATE_DRAIN_SECONDS": "1"}
    async with desk(tmp_path) as (nats, asking):
        async with worker(nats, env) as (first, _):
            await asking.ask("j1")
            await until(lambda: len(asking.text("j1")) > 5, "some text")
            stopping = time.monotonic()
            assert await first.stop() == 0
            assert time.monotonic() - stopping < 5
            assert not any(event.data.get("done") for event in asking.of("j1")), "the answer takes longer than that"
        assert first.said("job j1: handed_back"), first.output
        assert (await asking.states.get("j1")).status is JobStatus.QUEUED, first.output
        async with worker(nats):
            await asking.end("j1", 10)
            (restart,) = [event for event in asking.of("j1") if event.type == "ai_restart"]
            assert restart.data["attempt"] == 2
            assert asking.text("j1") == ANSWERS["en"]
            assert (await asking.state("j1", JobStatus.DONE)).attempt == 2


async def test_a_stopping_worker_finishes_what_it_can_and_takes_no_more(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        async with worker(nats, {**SLOW, "TIDEGATE_DRAIN_SECONDS": "10"}) as (run, _):
            await asking.ask("j1")
            await until(lambda: len(asking.text("j1")) > 5, "some text")
            run.process.send_signal(signal.SIGTERM)
            await until(lambda: run.said("SIGTERM: stopping"), "the signal has come")
            await asking.ask("late")
            assert await run.stop(seconds=8) == 0
            assert asking.text("j1") == ANSWERS["en"]
            assert not [event for event in asking.of("late") if event.data.get("done")]
        assert (await asking.states.get("late")).status is JobStatus.QUEUED
        async with worker(nats, FAST):
            await asking.end("late", 10)


async def test_a_killed_workers_job_is_taken_by_another(tmp_path: Path) -> None:
    env = {"TIDEGATE_AI_ACK_SECONDS": "2"}
    async with desk(tmp_path) as (nats, asking):
        async with worker(nats, {**SLOW, **env}) as (first, _):
            await asking.ask("j1")
            await until(lambda: len(asking.text("j1")) > 5, "some text")
            first.process.kill()
            await first.process.wait()
        async with worker(nats, {**FAST, **env}):
            await asking.end("j1", 10)
            assert [event.data["attempt"] for event in asking.of("j1") if event.type == "ai_restart"] == [2]
            assert asking.text("j1") == ANSWERS["en"]


async def test_a_broker_that_goes_away_and_comes_back_costs_no_piece_and_doubles_none(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, SLOW) as (run, url), httpx.AsyncClient() as client:
        await asking.ask("j1")
        await until(lambda: len(asking.text("j1")) > 5, "some text")
        await nats.run.stop()
        await until(lambda: run.said("NATS connection lost"), "the worker sees it")
        assert (await client.get(f"{url}/readyz")).status_code == 503
        async with nats_server(tmp_path, nats.port):
            await until(lambda: asking.bus.connected, "the desk is back")
            await asking.state("j1", JobStatus.DONE)
            await asking.queue_empty()  # the record says so before the last event is written
            position = await History(asking.bus).position()
            stored = [event async for event in History(asking.bus).after("client.ann", 0, position.last)]
            assert b"".join(event.payload for event in stored).count(b'"done":true') == 1
            indexes = [int(event.payload.split(b'"index":')[1].split(b",")[0]) for event in stored]
            assert indexes == list(range(len(stored)))
            await asking.ask("j2")
            await asking.state("j2", JobStatus.DONE)
