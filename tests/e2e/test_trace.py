"""One trace from the POST to the socket, as a tracing backend gets it over OTLP."""

from pathlib import Path

import httpx

from tests.support.gateway import open_stream
from tests.support.otlp import Collector, Span, collector, traced
from tests.support.stack import stack
from tests.support.waiting import until

SEND = [
    ("publisher-api", "POST /api/sse/send", "SERVER", None),
    ("publisher-api", "send tg.in.client", "PRODUCER", "POST /api/sse/send"),
    ("gateway", "deliver", "CONSUMER", "send tg.in.client"),
]
BROADCAST = [
    ("publisher-api", "POST /api/sse/broadcast", "SERVER", None),
    ("publisher-api", "send tg.in.broadcast", "PRODUCER", "POST /api/sse/broadcast"),
    ("gateway", "deliver", "CONSUMER", "send tg.in.broadcast"),
]
BATCH = [
    ("publisher-api", "POST /api/sse/batch", "SERVER", None),
    ("publisher-api", "send tg.in.client", "PRODUCER", "POST /api/sse/batch"),
    ("publisher-api", "send tg.in.broadcast", "PRODUCER", "POST /api/sse/batch"),
    ("gateway", "deliver", "CONSUMER", "send tg.in.client"),
    ("gateway", "deliver", "CONSUMER", "send tg.in.broadcast"),
]
CHAT = [
    ("publisher-api", "POST /api/ai/chat", "SERVER", None),
    ("publisher-api", "send tg.jobs.chat", "PRODUCER", "POST /api/ai/chat"),
    ("ai-worker", "queue tg.jobs.chat", "INTERNAL", "send tg.jobs.chat"),
    ("ai-worker", "process tg.jobs.chat", "CONSUMER", "send tg.jobs.chat"),
    ("ai-worker", "chat scripted", "CLIENT", "process tg.jobs.chat"),
    ("gateway", "deliver", "CONSUMER", "chat scripted"),
]


def edges(spans: list[Span]) -> set[tuple[str, str, str, str | None]]:
    """(service, name, kind, name of the parent or None where it is outside) of each span."""
    names = {span.span_id: span.name for span in spans}
    return {(span.service, span.name, span.kind, names.get(span.parent_id)) for span in spans}


async def whole(collected: Collector, trace_id: str, expected: list[tuple[str, str, str, str | None]]) -> list[Span]:
    """The spans of the trace, once all that are expected have come."""
    try:
        await until(lambda: set(expected) <= edges(collected.of(trace_id)), "the trace is whole", 15)
    except AssertionError:
        raise AssertionError(f"expected {expected}, the trace has {edges(collected.of(trace_id))}") from None
    return collected.of(trace_id)


async def test_a_send_a_broadcast_and_a_chat_are_one_trace_each_over_all_services(tmp_path: Path) -> None:
    async with collector() as collected, httpx.AsyncClient() as client:
        async with (
            stack(tmp_path, traced(collected.endpoint)) as running,
            open_stream(running.gateways[0], {"client_id": "ann"}) as stream,
        ):
            await stream.connected()
            connecting = ("gateway", "GET /api/sse", "SERVER", None)
            await until(lambda: connecting in edges(collected.spans), "connecting is a trace of its own")
            event = {"event_type": "note", "data": "hi"}
            caller = {"traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}
            url = f"{running.publisher}/api/sse/send"
            sent = await client.post(url, json={"client_id": "ann", **event}, headers=caller)
            assert sent.json()["trace_id"] == "0123456789abcdef0123456789abcdef", "the caller's trace goes on"
            await whole(collected, sent.json()["trace_id"], SEND)

            broadcast = await client.post(f"{running.publisher}/api/sse/broadcast", json=event)
            spans = await whole(collected, broadcast.json()["trace_id"], BROADCAST)
            server = next(span for span in spans if span.kind == "SERVER")
            assert server.attributes["http.request.method"] == "POST"
            assert server.attributes["http.response.status_code"] == 202
            deliver = next(span for span in spans if span.name == "deliver")
            assert deliver.attributes["tidegate.connections"] == 1
            assert deliver.attributes["messaging.system"] == "nats"

            lines = b'{"client_id":"ann","event_type":"n","data":1}\n{"broadcast":true,"event_type":"n","data":2}'
            answers = [
                await client.post(
                    f"{running.publisher}/api/sse/batch",
                    content=lines,
                    headers={
                        "content-type": "application/x-ndjson",
                        "traceparent": f"00-{trace_id}-0123456789abcdef-{sampled}",
                    },
                )
                for trace_id, sampled in (("1" * 32, "00"), ("2" * 32, "01"))
            ]
            assert [answer.json()["trace_id"] for answer in answers] == ["1" * 32, "2" * 32]
            await whole(collected, "2" * 32, BATCH)
            assert collected.of("1" * 32) == [], "a batch that is not sampled has no spans"

            for method in ("GET", "DELETE"):
                await client.request(method, f"{running.publisher}/api/presence/clients/some%2Fbody")
                name = f"{method} /api/presence/clients/{{name}}"
                await until(lambda name=name: any(span.name == name for span in collected.spans), name)

            chat = await client.post(f"{running.publisher}/api/ai/chat", json={"prompt": "hello", "client_id": "ann"})
            spans = await whole(collected, chat.json()["trace_id"], CHAT)
            await until(lambda: any('"done":true' in event.data for event in stream.events), "the answer ends")
            model = next(span for span in spans if span.kind == "CLIENT")
            assert model.attributes["gen_ai.operation.name"] == "chat"
            assert sum(span.name == "deliver" for span in collected.of(chat.json()["trace_id"])) <= 2, "no span a token"
            job = (await client.get(f"{running.publisher}/api/ai/chat/{chat.json()['job_id']}")).json()
            assert job["trace_id"] == chat.json()["trace_id"]
            async with open_stream(running.gateways[0], path=chat.json()["stream"]) as watching:
                await until(lambda: watching.ended, "the job's own stream ends")
            name = "GET /api/sse/jobs/{job_id}"
            await until(lambda: any(span.name == name for span in collected.spans), "its connecting is a span")
            watched = next(span for span in collected.spans if span.name == name)
            assert watched.attributes["tidegate.job.id"] == chat.json()["job_id"]
            assert watched.attributes["tidegate.job.trace_id"] == chat.json()["trace_id"]


async def test_without_an_endpoint_the_answers_and_the_logs_still_agree_on_a_trace_id(
    tmp_path: Path,
) -> None:
    async with stack(tmp_path) as running, httpx.AsyncClient() as client:
        bad = await client.post(f"{running.publisher}/api/sse/send", json={"client_id": "ann"})
        assert len(bad.json()["trace_id"]) == 32
        good = await client.post(f"{running.publisher}/api/ai/chat", json={"prompt": "[fail]", "client_id": "ann"})
        trace_id = good.json()["trace_id"]
        await until(lambda: running.processes["ai-worker"].said(trace_id), "the worker's log names the trace")
