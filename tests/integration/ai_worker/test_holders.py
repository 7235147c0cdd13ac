"""Jobs that NATS gives out again although their worker is alive: it keeps them."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from ai_worker.holders import Holders
from ai_worker.lease import HeldByAnother
from ai_worker.models.scripted import ANSWERS
from tests.integration.ai_worker.support import FAST, SLOW, Desk, desk, job_of, lease, worker
from tests.support.bus import connected
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.events.history import Stored
from tidegate_common.bus.wire import headers
from tidegate_common.contract.jobs import Job, JobStatus
from tidegate_common.errors import BrokerUnavailable

SOON = {**SLOW, "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.03", "TIDEGATE_AI_ACK_SECONDS": "1"}


async def stored(asking: Desk) -> list[Stored]:
    position = await asking.history.position()
    return [event async for event in asking.history.after("client.ann", 0, position.last)]


async def again(asking: Desk) -> None:
    """The job's message once more: as if it were given out again."""
    state = await asking.states.get("j1")
    params = {"messages": [{"role": "user", "content": "hello"}]}
    job = Job(job_id="j1", kind="chat", tail="client.ann", params=params, created=state.created, start=state.start)
    await asking.publisher.store("tg.jobs.chat.0.client.ann", msgspec.json.encode(job), {}, None)


async def whole_and_once(asking: Desk) -> None:
    state = await asking.state("j1", JobStatus.DONE)
    await asking.queue_empty()
    assert (state.attempt, state.failures) == (1, 0)
    events = await stored(asking)
    assert [msgspec.json.decode(event.payload)["index"] for event in events] == list(range(len(events)))
    texts = [msgspec.json.decode(event.payload) for event in events if b"ai_response" in event.header]
    assert "".join(text["content"] for text in texts) == ANSWERS["en"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_outage_of_nats_beyond_the_acknowledgement_time_restarts_nothing(tmp_path: Path, workers: int) -> None:
    """Each job that ran was begun again when NATS was back, and counted as one whose worker had died."""
    async with desk(tmp_path) as (nats, asking), AsyncExitStack() as stack:
        runs = [(await stack.enter_async_context(worker(nats, SOON)))[0] for _ in range(workers)]
        await asking.ask("j1")
        await until(lambda: len(asking.text("j1")) > 5, "some text")
        await nats.run.stop()
        for run in runs:
            await until(lambda run=run: run.said("NATS connection lost"), "the workers see it")
        await asyncio.sleep(2)  # the outage itself
        async with nats_server(tmp_path, nats.port):
            await until(lambda: asking.bus.connected, "the desk is back")
            await whole_and_once(asking)


async def test_a_worker_that_is_given_its_own_job_again_goes_on_with_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, SOON) as (run, _):
        await asking.ask("j1")
        await until(lambda: len(asking.text("j1")) > 5, "some text")
        await again(asking)
        await whole_and_once(asking)
        assert run.said("job j1: done")


async def test_a_job_is_left_to_the_worker_that_has_it_and_answers(tmp_path: Path) -> None:
    single = {**SOON, "TIDEGATE_AI_CONCURRENCY": "1"}
    async with desk(tmp_path) as (nats, asking), worker(nats, single) as (one, _), worker(nats, single) as (two, _):
        await asking.put("busy", "chat", {"messages": [{"role": "user", "content": "[long]"}]}, tail="client.bob")
        await asking.state("busy", JobStatus.RUNNING)
        await asking.ask("j1")
        await until(lambda: len(asking.text("j1")) > 5, "some text")
        await asking.cancel("busy")
        await again(asking)
        await until(lambda: one.said("job j1: left") or two.said("job j1: left"), "the other leaves it")
        await whole_and_once(asking)


async def test_who_is_dead_or_paused_or_has_given_up_does_not_count_as_alive(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), connected(nats.url) as bus:
        own, others = Holders(bus), Holders(asking.bus)
        await own.serve()
        await bus.round_trip()
        first, second = own.new(), own.new()
        with own.holding(first):
            assert await others.alive(first)
            assert not await others.alive(second)
        assert not await others.alive(first)
        assert not await others.alive("nobody-1")


async def test_after_an_outage_a_worker_that_is_not_back_yet_is_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        others = Holders(asking.bus)
        await nats.run.stop()
        await until(lambda: not asking.bus.connected, "the connection is lost")
        with pytest.raises(BrokerUnavailable):
            await others.alive("late-1")
        async with nats_server(tmp_path, nats.port) as nats:
            await until(lambda: asking.bus.connected, "the asker is back")
            asked = asyncio.create_task(others.alive("late-1"))
            async with connected(nats.url) as bus:
                late = Holders(bus)
                late._process = "late"
                await late.serve()
                with late.holding(late.new()):
                    assert await asked


async def test_a_record_whose_change_was_stored_but_not_confirmed_is_known_again(tmp_path: Path) -> None:
    """The repeat took the worker's own word for that of another, which had died: one failure for each lost answer."""
    async with desk(tmp_path) as (nats, asking), connected(nats.url) as bus:
        await asking.ask("j1")
        job = await job_of(asking)
        first, other = lease(asking, job), lease(asking, job)
        first_holders = Holders(bus)
        first.holder = first_holders.new()
        for _ in range(2):
            state = await first.acquire()
            assert state is not None
            assert (state.attempt, state.failures, state.holder) == (1, 0, first.holder)
        await first_holders.serve()
        await bus.round_trip()
        with first_holders.holding(first.holder), pytest.raises(HeldByAnother):
            await other.acquire()
        assert (await asking.states.get("j1")).holder == first.holder, "it is not known to be dead"
        state = await other.acquire()
        assert state is not None
        assert (state.attempt, state.failures, state.holder) == (2, 1, other.holder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_job_whose_worker_falls_silent_is_taken_over_in_time(tmp_path: Path, how: signal.Signals) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, SOON) as (silent, _):
        await asking.ask("j1", "[long]")
        await until(lambda: len(asking.text("j1")) > 5, "some text")
        async with worker(nats, {**FAST, "TIDEGATE_AI_ACK_SECONDS": "1"}):
            silent.process.send_signal(how)
            try:
                await until(lambda: any(event.type == "ai_restart" for event in asking.of("j1")), "taken over")
            finally:
                if silent.process.returncode is None:
                    silent.process.kill()
            events = await stored(asking)
            await asking.cancel("j1")
        place = next(place for place, event in enumerate(events) if b"ai_restart" in event.header)
        assert at(events[place]) - at(events[place - 1]) < 1 + 3


def at(event: Stored) -> float:
    """When it was stored."""
    found = headers.field(event.header, headers.TIMESTAMP) or b""
    return datetime.fromisoformat(found.decode()).timestamp()
