from pathlib import Path
from typing import Any

import msgspec

from tests.integration.ai_worker.support import FAST, PARENT, TRACE, desk, worker
from tests.support.otlp import collector
from tests.support.waiting import until


async def test_a_job_is_a_consumer_span_with_the_models_call_inside_and_no_span_for_a_token(tmp_path: Path) -> None:
    async with collector() as collected, desk(tmp_path) as (nats, asking):
        env = {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint, "OTEL_METRICS_EXPORTER": "none"}
        async with worker(nats, {**env, "OTEL_BSP_SCHEDULE_DELAY": "100"}):
            await asking.ask("j1", max_tokens=30, temperature=0.5)
            await asking.end("j1")
            await until(lambda: len(collected.of(TRACE)) >= 3, "all spans")
        queue, process, chat = sorted(collected.of(TRACE), key=lambda span: span.name, reverse=True)
        assert (queue.name, queue.kind, queue.parent_id) == ("queue tg.jobs.chat", "INTERNAL", process.parent_id)
        assert process.attributes["tidegate.job.attempt"] == 1
        assert process.attributes["tidegate.job.outcome"] == "done"
        assert (process.name, process.kind, process.parent_id) == (
            "process tg.jobs.chat",
            "CONSUMER",
            "0123456789abcdef",
        )
        assert (chat.name, chat.kind, chat.parent_id) == ("chat scripted", "CLIENT", process.span_id)
        wanted = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "scripted",
            "gen_ai.request.model": "scripted",
            "gen_ai.request.max_tokens": 30,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.response.model": "scripted",
            "gen_ai.usage.input_tokens": len("hello"),
            "gen_ai.usage.output_tokens": 30,
        }
        assert wanted.items() <= chat.attributes.items()
        reasons: Any = chat.attributes["gen_ai.response.finish_reasons"]
        assert [reason.string_value for reason in reasons.values] == ["length"]
        carried = [event.trace_parent for event in asking.of("j1") if event.trace_parent]
        assert len(carried) == 2
        assert all(chat.span_id in parent for parent in carried)


async def test_a_time_that_no_trace_can_say_costs_no_other_span(tmp_path: Path) -> None:
    """A foreign message's time of making was a span's start. One past what traces can write took all spans that were
    sent with it."""
    async with collector() as collected, desk(tmp_path) as (nats, asking):
        far = {"job_id": "far", "kind": "chat", "tail": "client.ann", "params": {}, "created": 5e10}
        sampled = {"traceparent": PARENT}
        await asking.bus.jetstream.publish("tg.jobs.chat.0.client.ann", msgspec.json.encode(far), headers=sampled)
        env = {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collected.endpoint, "OTEL_METRICS_EXPORTER": "none"}
        await asking.ask("j1")
        async with worker(nats, env) as (run, _):
            await asking.end("j1")
            await asking.queue_empty()
            assert await run.stop() == 0
        assert len(collected.of(TRACE)) >= 3
        assert not run.said("Traceback"), "\n".join(run.output)
