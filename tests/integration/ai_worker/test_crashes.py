"""Workers that die, pause or come back: one whole answer, and an end that is written once."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ai_worker.lease import Fence
from ai_worker.models.scripted import ANSWERS, THOUGHTS
from tests.integration.ai_worker.support import FAST, SLOW, Desk, desk, office, worker
from tests.support.processes import paused
from tests.support.waiting import until
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.contract.jobs import Job, JobStatus, Usage
from tidegate_common.errors import NotFound

SOON = {"TIDEGATE_AI_ACK_SECONDS": "1.5"}
LONG_PROMPT = {"messages": [{"role": "user", "content": "[long]"}]}


def ends(asking: Desk, job_id: str) -> int:
    return sum(bool(event.data.get("done")) for event in asking.of(job_id))


async def test_a_worker_that_comes_back_from_a_pause_can_not_write_into_the_answer_of_another(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, {**SLOW, **SOON}) as (first, _):
        await asking.ask("j1")
        await until(lambda: len(asking.text("j1")) > 5, "some text")
        async with AsyncExitStack() as exits:
            async with paused(first):
                await exits.enter_async_context(worker(nats, {**SLOW, **SOON}))
                await until(lambda: any(event.type == "ai_restart" for event in asking.of("j1")), "taken over")
                await until(lambda: len(asking.text("j1")) > 5, "some text of the second")
            await until(lambda: first.said("job j1: abandoned"), "the first gives up")
            await asking.end("j1")
        assert asking.text("j1") == ANSWERS["en"]
        assert ends(asking, "j1") == 1
        state = await asking.state("j1", JobStatus.DONE)
        assert (state.attempt, state.failures) == (2, 1)


async def test_a_model_that_can_goes_on_from_what_was_stored(tmp_path: Path) -> None:
    env = {**SLOW, **SOON, "TIDEGATE_AI_CONTINUE": "assistant"}
    async with desk(tmp_path) as (nats, asking):
        async with worker(nats, env) as (dying, _):
            await asking.ask("j1")
            await until(lambda: len(asking.text("j1")) > 5, "some text")
            dying.process.kill()
            await dying.process.wait()
        async with worker(nats, env):
            last = await asking.end("j1")
        assert asking.text("j1") == ANSWERS["en"]
        events = asking.of("j1")
        assert "ai_restart" not in {event.type for event in events}
        assert [event.data["index"] for event in events] == list(range(len(events)))
        assert last.data["usage"]["completion_tokens"] == len(THOUGHTS["en"]) + len(ANSWERS["en"])
        assert (await asking.state("j1", JobStatus.DONE)).attempt == 2


async def test_several_candidates_come_mixed_and_each_is_whole(tmp_path: Path) -> None:
    async with office(tmp_path) as asking:
        await asking.ask("j1", n=3, max_tokens=20)
        last = await asking.end("j1")
        found = await read_answer(asking.history, "j1", "client.ann", (await asking.states.get("j1")).start)
        texts = [ANSWERS["en"][:20], f"1. {ANSWERS['en']}"[:20], f"2. {ANSWERS['en']}"[:20]]
        assert [each.content for each in found.candidates] == texts
        assert {each.finish_reason for each in found.candidates} == {"length"}
        assert last.data["usage"] == {"prompt_tokens": 5, "completion_tokens": 60}


async def test_the_shipped_kinds_run_in_a_worker(tmp_path: Path) -> None:
    async with office(tmp_path) as asking:
        await asking.put("text", "transform", {"text": "Hello", "instruction": "Translate"})
        await asking.put("image", "image.progressive", {"width": 64, "height": 64})
        await asking.put("speech", "transcribe", {})
        for job_id in ("text", "image", "speech"):
            assert (await asking.end(job_id)).data["finish_reason"] == "stop"
            indexes = [event.data["index"] for event in asking.of(job_id)]
            assert indexes == list(range(len(indexes)))
        assert asking.text("text") == ANSWERS["en"]
        assert sum(event.type == "ai_artifact" for event in asking.of("image")) == 5
        assert sum(event.type == "ai_transcript" for event in asking.of("speech")) == 6


async def test_a_job_whose_workers_keep_dying_fails_and_is_kept_among_the_dead(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        await asking.put("j1", "chat", LONG_PROMPT)
        for _ in range(2):
            async with worker(nats, {**SLOW, **SOON}) as (dying, _):
                asking.events.clear()
                await until(lambda: len(asking.of("j1")) > 3, "it is at work")
                dying.process.kill()
                await dying.process.wait()
        async with worker(nats, {**FAST, **SOON, "TIDEGATE_AI_MAX_ATTEMPTS": "2"}):
            assert (await asking.end("j1")).data["code"] == "too_many_attempts"
            state = await asking.state("j1", JobStatus.FAILED)
            assert (state.attempt, state.failures) == (3, 2)
            assert state.usage == Usage(0, state.pieces), "what was shown was paid for"
            assert state.pieces > 0
            (dead,), total = await DeadJobs(asking.bus).latest(10)
            assert (total, dead.job.job_id, dead.job.params, dead.attempts) == (1, "j1", LONG_PROMPT, 3)
            await asking.queue_empty()


@pytest.mark.parametrize("goes_on", ["none", "assistant"])
async def test_a_cancel_after_the_worker_died_tells_the_usage_so_far(tmp_path: Path, goes_on: str) -> None:
    """The next worker, which only ends the job, said that nothing had been used."""
    env = {**SLOW, **SOON, "TIDEGATE_AI_CONTINUE": goes_on}
    async with desk(tmp_path) as (nats, asking):
        async with worker(nats, env) as (dying, _):
            await asking.put("j1", "chat", LONG_PROMPT)
            await until(lambda: len(asking.text("j1")) > 5, "some text")
            dying.process.kill()
            await dying.process.wait()
        await asking.cancel("j1")
        async with worker(nats, env):
            last = await asking.end("j1")
            await asking.queue_empty()
        assert last.data["finish_reason"] == "cancelled"
        assert last.data["usage"] == {"prompt_tokens": 0, "completion_tokens": len(asking.of("j1")) - 1}
        assert (await asking.state("j1", JobStatus.CANCELLED)).usage == Usage(0, last.data["index"])


async def test_what_was_used_goes_with_a_job_that_is_handed_back_and_counts_on_in_the_next_worker(
    tmp_path: Path,
) -> None:
    env = {**SLOW, "TIDEGATE_DRAIN_SECONDS": "0.2", "TIDEGATE_AI_CONTINUE": "assistant"}
    async with desk(tmp_path) as (nats, asking):
        await asking.put("j1", "chat", LONG_PROMPT)
        async with worker(nats, env) as (run, _):
            await until(lambda: len(asking.text("j1")) > 3, "some text")
            await run.stop()
        handed = await asking.state("j1", JobStatus.QUEUED)
        assert handed.usage == Usage(len("[long]"), handed.pieces)
        async with worker(nats, env):
            await until(lambda: len(asking.of("j1")) > handed.pieces + 3, "it goes on")
            await asking.cancel("j1")
            last = await asking.end("j1")
        assert last.data["usage"] == {"prompt_tokens": len("[long]"), "completion_tokens": last.data["index"]}


async def test_handing_back_is_no_failure(tmp_path: Path) -> None:
    env = {**SLOW, "TIDEGATE_DRAIN_SECONDS": "0.5"}
    async with desk(tmp_path) as (nats, asking):
        await asking.put("j1", "chat", LONG_PROMPT)
        for attempt in range(1, 4):
            asking.events.clear()  # the last worker's text is no sign of this one
            async with worker(nats, env) as (run, _):
                await until(lambda: len(asking.text("j1")) > 3, "some text")
                await run.stop()
            state = await asking.state("j1", JobStatus.QUEUED)
            assert (state.attempt, state.failures) == (attempt, 0)
            assert state.pieces == asking.of("j1")[-1].data["index"] + 1


async def test_a_failure_of_the_backend_is_kept_among_the_dead_and_a_bad_request_is_not(tmp_path: Path) -> None:
    async with office(tmp_path) as asking:
        dead = DeadJobs(asking.bus)
        await asking.ask("bad", messages=[])
        await asking.end("bad")
        await asking.ask("j1", "please [fail]")
        await asking.end("j1")
        await asking.queue_empty()
        assert (await dead.get("j1")).error.startswith("backend_error: ")
        with pytest.raises(NotFound):
            await dead.get("bad")


@pytest.mark.parametrize("then", ["an end", "error"])
async def test_a_piece_that_no_event_can_hold_ends_the_job_at_once(tmp_path: Path, then: str) -> None:
    """An error that followed on such a piece left the job to five workers in turn, until it was given up."""
    env = {**FAST, "TIDEGATE_AI_HANDLERS": "large=tests.integration.ai_worker.handlers:large"}
    async with office(tmp_path, env) as asking:
        await asking.put("j1", "large", {"then": then})
        assert (await asking.end("j1", 5)).data["code"] == "output_too_large"
        state = await asking.state("j1", JobStatus.FAILED)
        assert (state.attempt, state.pieces) == (1, 1)
        await asking.queue_empty()


async def test_an_artifact_by_reference_travels_as_its_address(tmp_path: Path) -> None:
    env = {**FAST, "TIDEGATE_AI_HANDLERS": "linked=tests.integration.ai_worker.handlers:linked"}
    async with office(tmp_path, env) as asking:
        await asking.put("j1", "linked", {"url": "https://files.example/plan.svg"})
        last = await asking.end("j1")
        (artifact,) = [event.data for event in asking.of("j1") if event.type == "ai_artifact"]
        wanted = {"name": "plan", "media_type": "image/svg+xml", "url": "https://files.example/plan.svg"}
        assert artifact == {**wanted, "job_id": "j1", "index": 1, "final": True}
        found = await read_answer(asking.history, "j1", "client.ann", (await asking.states.get("j1")).start)
        assert [(each.url, each.content, each.final) for each in found.artifacts] == [(wanted["url"], None, True)]
        assert last.data["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}


async def always() -> bool:
    return True


@pytest.mark.parametrize("attempt", [1, 2])
async def test_an_end_that_was_recorded_but_not_written_is_written_by_the_next_worker(
    tmp_path: Path, attempt: int
) -> None:
    async with desk(tmp_path) as (nats, asking):
        await asking.ask("j1")
        ended = {
            "status": JobStatus.DONE,
            "attempt": attempt,
            "finish_reason": "stop",
            "usage": Usage(1, 2),
            "pieces": 7,
        }
        await asking.states.change("j1", lambda state: replace(state, holder="gone-1", **ended))
        fence = Fence(asking.publisher, asking.history, asking.bus.subjects.fence("j1"), "j1", always)
        await fence.raise_(attempt)
        async with worker(nats):
            last = await asking.end("j1")
            await asking.queue_empty()
        assert (last.data["index"], last.data["finish_reason"], last.data["usage"]["prompt_tokens"]) == (7, "stop", 1)
        assert asking.of("j1") == [last], "the answer is not given again"
        assert (await asking.states.get("j1")).end


async def test_an_end_that_was_written_is_found_and_not_written_again(tmp_path: Path) -> None:
    async with office(tmp_path) as asking:
        await asking.ask("j1")
        await asking.end("j1")
        await asking.queue_empty()
        first = await asking.state("j1", JobStatus.DONE)
        await asking.states.change("j1", lambda state: replace(state, end=""))
        again = Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=1, start=first.start)
        await asking.publisher.store("tg.jobs.chat.0.client.ann", msgspec.json.encode(again), {}, None)
        await asking.queue_empty()
        assert (await asking.states.get("j1")).end == first.end
        assert ends(asking, "j1") == 1


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_job_that_has_ended_wholly_only_leaves_the_queue(tmp_path: Path, attempt: int) -> None:
    async with office(tmp_path) as asking:
        await asking.ask("j1")
        await asking.end("j1")
        await asking.queue_empty()
        await asking.states.change("j1", lambda state: replace(state, attempt=attempt, holder="gone-1"))
        again = Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=1)
        await asking.publisher.store("tg.jobs.chat.0.client.ann", msgspec.json.encode(again), {}, None)
        await asking.queue_empty()
        assert ends(asking, "j1") == 1


async def test_a_job_past_its_deadline_is_not_begun_and_a_running_one_is_stopped_at_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        await asking.put("late", "chat", LONG_PROMPT, deadline=time.time() - 1)
        async with worker(nats, SLOW):
            last = await asking.end("late")
            assert (last.data["code"], len(asking.of("late"))) == ("timeout", 1)
            await asking.put("j1", "chat", LONG_PROMPT, deadline=time.time() + 0.5)
            last = await asking.end("j1", 5)
            assert (last.data["code"], "deadline" in last.data["message"]) == ("timeout", True)
            assert len(asking.of("j1")) > 3


async def test_a_worker_takes_no_more_jobs_than_it_has_slots_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats, {**SLOW, "TIDEGATE_AI_CONCURRENCY": "2"}):
        for number in range(5):
            await asking.put(f"j{number}", "chat", LONG_PROMPT, owner=f"client.{number}")
        await until(lambda: sum(bool(asking.text(f"j{number}")) for number in range(5)) == 2, "both slots are taken")
        queue = await JobQueue.open(asking.bus)
        rest = [await queue.take(0) for _ in range(3)]
        assert all(rest), "the others are free for any worker"
        for delivery in rest:
            assert delivery is not None
            await delivery.discard()
        for number in range(5):
            await asking.cancel(f"j{number}")


async def test_a_jobs_events_can_be_read_back_as_one_document(tmp_path: Path) -> None:
    async with office(tmp_path) as asking:
        await asking.ask("j1")
        await asking.ask("j2")
        await asyncio.gather(asking.end("j1"), asking.end("j2"))
        start = (await asking.states.get("j1")).start
        found = await read_answer(asking.history, "j1", "client.ann", start)
        assert (found.candidates[0].content, found.done, found.whole) == (ANSWERS["en"], True, True)
