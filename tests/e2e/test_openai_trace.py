"""A completion is one trace, from the OpenAI client's request to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from tests.e2e.test_trace import whole
from tests.support.otlp import collector, traced
from tests.support.stack import stack

COMPLETION = [
    ("gateway", "POST /v1/chat/completions", "SERVER", None),
    ("gateway", "send tg.jobs.chat", "PRODUCER", "POST /v1/chat/completions"),
    ("ai-worker", "process tg.jobs.chat", "CONSUMER", "send tg.jobs.chat"),
    ("ai-worker", "chat scripted", "CLIENT", "process tg.jobs.chat"),
]


async def test_a_completion_is_one_trace_from_the_clients_request_to_the_model(tmp_path: Path) -> None:
    async with collector() as collected:
        async with stack(tmp_path, traced(collected.endpoint)) as running:
            messages: Any = [{"role": "user", "content": "hello"}]
            base = f"{running.gateways[0]}/v1"
            async with AsyncOpenAI(base_url=base, api_key="any", max_retries=0, timeout=20) as client:
                stream = await client.chat.completions.create(
                    model="scripted",
                    messages=messages,
                    stream=True,
                    extra_headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"},
                )
                chunks = [chunk async for chunk in stream]
            spans = await whole(collected, "1" * 32, COMPLETION)
            server = next(span for span in spans if span.kind == "SERVER")
            assert server.attributes["http.response.status_code"] == 200
            assert server.attributes["gen_ai.operation.name"] == "chat"
            assert server.attributes["gen_ai.request.model"] == "scripted"
            assert server.attributes["gen_ai.usage.input_tokens"] == 5
            assert chunks[0].id == f"chatcmpl-{server.attributes['tidegate.job.id']}"
            assert len(spans) < 10, "no span a token"
