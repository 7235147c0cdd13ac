"""No label of a metric, and no name of a span, holds what a caller sent: each would be a series of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
from openai import AsyncOpenAI

from tests.support.gateway import open_stream
from tests.support.otlp import collector, traced
from tests.support.stack import Stack, stack
from tests.support.waiting import until

MARK = "zq"
"""In everything that is invented here."""

LABELS: dict[str, str] = {
    "error_type": r"|\d{3}|[a-z_]+|[A-Z][A-Za-z]+",
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "scripted",
    "gen_ai_request_model": "scripted|other",
    "gen_ai_token_type": "input|output",
    "http_request_method": "GET|POST|DELETE|HEAD|OPTIONS|PUT|_OTHER",
    "http_response_status_code": r"\d{3}",
    "http_route": r"|/api/(sse|ai|presence)/[a-z]+(/\{[a-z_]+\})?(/retry)?",
    "kind": "durable|volatile",
    "limit": "[a-z_]{1,20}",
    "le": r"\+Inf|[0-9.e+-]+",
    "network_protocol_version": r"1\.[01]",
    "otel_scope_name": "tidegate|opentelemetry.instrumentation.asgi",
    "otel_scope_schema_url": r"|https://opentelemetry\.io/schemas/[0-9.]+",
    "otel_scope_version": r"|[0-9.b]+",
    "reason": "[a-z_]{1,20}",
    "result": "[a-z]{1,20}",
    "service_instance_id": "[0-9a-f-]{36}",
    "service_name": "gateway|publisher-api|ai-worker",
    "service_namespace": "tidegate",
    "telemetry_sdk_language": "python",
    "telemetry_sdk_name": "opentelemetry",
    "telemetry_sdk_version": "[0-9.]+",
    "url_scheme": "http",
    "what": "job|record|dead",
}
"""Every label that there may be, and what it may hold."""

SPANS = re.compile(
    r"(GET|POST|DELETE|HTTP|HEAD|OPTIONS|PUT)( /(api|v1)/[a-z_/{}]+)?"
    r"|send tg\.(in|out)\.(client|user|topic|broadcast)|(send|queue|process) tg\.jobs(\.(chat|transform))?"
    r"|chat( scripted)?|deliver"
)
_SAMPLE = re.compile(r"^[a-z_]+\{(.*)\} ")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


async def raw(url: str, request: bytes) -> None:
    """Sends what no client sends, and reads the answer to its end."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request)
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(5):
            await reader.read()
    writer.close()


async def invent(running: Stack, number: int) -> None:
    """Invented names in each place of a request that has room for one."""
    name = f"{MARK}{number}"
    odd = {"user-agent": name, "x-forwarded-proto": name, "x-forwarded-for": name, "accept-language": name}
    target = [{"client_id": name}, {"user_id": name}, {"topic": f"{name}.{name}"}, {}][number % 4]
    event = {"event_type": name, "data": name}
    async with httpx.AsyncClient(headers=odd, timeout=20) as client:
        api, gateway = running.publisher, running.gateways[0]
        for durable in (True, False):
            path = "send" if target else "broadcast"
            await client.post(f"{api}/api/sse/{path}", json={**target, **event, "durable": durable})
        await client.post(f"{api}/api/ai/chat", json={"prompt": "hi", "model": name, **target})
        await client.post(f"{api}/api/ai/jobs", json={"kind": name, "params": {name: name}, **target})
        asked: dict[str, Any] = {"text": "hi", "instruction": "Shout", "model": name}
        await client.post(f"{api}/api/ai/jobs", json={"kind": "transform", "params": asked})
        for path in (f"{name}", f"api/{name}", f"api/presence/{name}/%7Bname%7D", f"api/presence/users/{name}"):
            await client.get(f"{api}/{path}?{name}={name}")
            await client.get(f"{gateway}/{path}?{name}={name}")
        for path in (f"api/ai/chat/{name}", f"api/ai/dead/{name}", f"api/ai/dead/{name}/retry", f"api/sse/jobs/{name}"):
            for url in (api, gateway):
                await client.request("DELETE", f"{url}/{path}")
                await client.get(f"{url}/{path}")
        await client.get(f"{gateway}/v1/models/{name}")
        await client.post(f"{gateway}/v1/{name}", json={})
    async with AsyncOpenAI(base_url=f"{running.gateways[0]}/v1", api_key=name, max_retries=0, timeout=20) as front:
        with contextlib.suppress(openai.APIError):
            await front.chat.completions.create(
                model=name, user=name, messages=[{"role": "user", "content": "hi"}], max_tokens=2
            )
    for url in (running.publisher, running.gateways[0], running.worker):
        await raw(url, f"{name.upper()} /{name} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        await raw(url, f"GET http://{name}/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())


async def labels(url: str) -> dict[str, set[str]]:
    async with httpx.AsyncClient(timeout=20) as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        sample = _SAMPLE.match(line)
        for label, value in _LABEL.findall(sample[1]) if sample else ():
            found.setdefault(label, set()).add(value)
    return found


async def test_no_label_and_no_spans_name_holds_what_a_caller_sent(tmp_path: Path) -> None:
    """Forty invented names of models made 1.8 MB of /metrics, each of them kept, and sent, for ever."""
    async with collector() as collected:
        env = {
            **traced(collected.endpoint),
            "TIDEGATE_COMPLETION_SECONDS": "10",
            "TIDEGATE_ALLOWED_HOSTS": "",
        }
        async with stack(tmp_path, env) as running:
            urls = [running.publisher, running.gateways[0], running.worker]
            async with open_stream(running.gateways[0], {"client_id": f"{MARK}0", "topic": f"{MARK}2.>"}) as stream:
                await stream.connected()
                await invent(running, 0)
                before = [{label: len(values) for label, values in (await labels(url)).items()} for url in urls]
                for number in range(1, 5):
                    await invent(running, number)
                async with httpx.AsyncClient() as client:
                    chat = await client.post(f"{running.publisher}/api/ai/chat", json={"prompt": "hi"})
                trace_id = chat.json()["trace_id"]
                await until(lambda: "CLIENT" in {span.kind for span in collected.of(trace_id)}, "the spans have come")
            faults = []
            for url, earlier in zip(urls, before, strict=True):
                for label, values in (await labels(url)).items():
                    allowed = LABELS.get(label, "nothing: it is new")
                    wrong = {each for each in values if not re.fullmatch(allowed, each) or MARK in each.lower()}
                    grown = label != "reason" and len(values) > earlier.get(label, 0) + 2
                    if wrong or grown:
                        faults.append((url, label, allowed, sorted(wrong or values)))
            assert faults == []
            spans = {span.name for span in collected.spans}
            assert {name for name in spans if not SPANS.fullmatch(name) or MARK in name.lower()} == set()
            assert {"chat scripted", "send tg.jobs", "process tg.jobs.chat", "send tg.in.client"} <= spans
