import re
import time
from pathlib import Path

import httpx

from ai_worker.models.scripted import ANSWERS, FAIL_AFTER
from tests.integration.ai_worker.support import FAST, SLOW, TRACE, desk, office, worker
from tests.support.waiting import until
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.jobs import JobStatus


async def test_an_answer_comes_in_order_thinking_first_and_ends_with_its_usage(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        await desk.ask("j1", "你好")
        last = await desk.end("j1")
        events = desk.of("j1")
        assert [event.data["index"] for event in events] == list(range(len(events)))
        assert [event.type for event in events[:3]] == ["ai_reasoning", "ai_reasoning", "ai_response"]
        assert desk.text("j1") == ANSWERS["zh"]
        assert last.type == "ai_response"
        assert last.data["finish_reason"] == "stop"
        assert last.data["usage"] == {"prompt_tokens": 2, "completion_tokens": len(ANSWERS["zh"])}
        state = await desk.state("j1", JobStatus.DONE)
        assert (state.attempt, state.finish_reason, state.usage is not None) == (1, "stop", True)
        await desk.queue_empty()


async def test_only_the_first_and_the_last_event_carry_the_askers_trace(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        await desk.ask("j1")
        await desk.end("j1")
        parents = [event.trace_parent for event in desk.of("j1")]
        assert TRACE in parents[0]
        assert TRACE in parents[-1]
        assert set(parents[1:-1]) == {""}


async def test_more_jobs_than_slots_are_all_answered(tmp_path: Path) -> None:
    async with office(tmp_path, {**FAST, "TIDEGATE_AI_CONCURRENCY": "2"}) as desk:
        for number in range(6):
            await desk.ask(f"j{number}")
        for number in range(6):
            await desk.end(f"j{number}")
            assert desk.text(f"j{number}") == ANSWERS["en"]


async def test_a_job_that_has_waited_for_longer_than_records_are_kept_is_answered_all_the_same(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        created = time.time() - StreamLimits().job_state_seconds - 1
        await asking.put("j1", "chat", {"messages": [{"role": "user", "content": "hello"}]}, created=created)
        kept = await asking.states._bucket.get("j1")
        assert kept is not None
        assert await asking.states.forget("j1", kept.revision)
        async with worker(nats):
            await asking.end("j1")
            assert asking.text("j1") == ANSWERS["en"]
            await asking.queue_empty()


async def test_a_backend_that_fails_ends_the_job_with_an_error_fit_for_people(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        await desk.ask("j1", "please [fail]")
        last = await desk.end("j1")
        assert last.type == "ai_error"
        assert last.data["code"] == "backend_error"
        assert "Traceback" not in last.data["message"]
        assert desk.text("j1") == ANSWERS["en"][:FAIL_AFTER]
        assert (await desk.state("j1", JobStatus.FAILED)).error
        await desk.queue_empty()


async def test_bad_jobs_are_refused_and_the_next_one_is_answered(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        await desk.ask("unknown", kind="paint")
        await desk.ask("params", messages=[{"role": "king", "content": "x"}])
        await desk.ask("long", "x" * 16_001)
        broken = b'{"job_id":"broken","kind":"chat","tail":"client.ann","params":7,"created":1}'
        await desk.publisher.store("tg.jobs.chat.0.client.ann", broken, {}, None)
        await desk.publisher.store("tg.jobs.chat.0.client.ann", b"no json", {}, None)
        await desk.ask("good")
        codes = {
            job_id: (await desk.end(job_id)).data.get("code") for job_id in ("unknown", "params", "long", "broken")
        }
        assert codes == {
            "unknown": "unknown_kind",
            "params": "invalid_params",
            "long": "prompt_too_long",
            "broken": "invalid_params",
        }
        assert (await desk.end("good")).data["finish_reason"] == "stop"
        assert (await desk.state("unknown", JobStatus.FAILED)).error
        await desk.queue_empty()


async def test_a_job_over_its_time_limit_ends_with_an_error(tmp_path: Path) -> None:
    async with office(tmp_path, {**SLOW, "TIDEGATE_AI_JOB_SECONDS": "0.3"}) as desk:
        await desk.ask("j1", "[long]")
        assert (await desk.end("j1")).data["code"] == "timeout"


async def test_metrics_tell_outcomes_tokens_and_times(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking), worker(nats) as (_, url), httpx.AsyncClient() as client:
        await asking.ask("j1")
        await asking.end("j1")

        async def counted() -> bool:
            return "tidegate_jobs_total{" in (await client.get(f"{url}/metrics")).text

        await until(counted, "the job is counted")
        text = (await client.get(f"{url}/metrics")).text
        for name in (
            "tidegate_jobs_active",
            "tidegate_jobs_queued",
            "tidegate_ai_tokens_per_second",
            "gen_ai_server_time_to_first_token_seconds_count",
            "gen_ai_server_time_per_output_token_seconds_count",
            "gen_ai_client_operation_duration_seconds_count",
            "gen_ai_client_token_usage",
        ):
            assert f"\n{name}" in text
        assert re.search(r'\ntidegate_jobs_total\{[^}]*"done"[^}]*\} 1\b', text)
