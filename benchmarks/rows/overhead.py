"""What the whole stack adds to a model's answer: against calling the backend directly, in the same run."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse

from benchmarks.accounting import cpu_seconds
from benchmarks.figures import Row, beside, median, quantile, shown
from benchmarks.options import Options
from benchmarks.paced_endpoint import MODEL, PER_SECOND
from benchmarks.tidegate import Tidegate, tidegate
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.waiting import until

PARTS = ("NATS", "gateway", "worker")
STREAMS = 20
TOKENS = 300
FIRST_BAR, TOKEN_BAR = 7.25, 30
"""Through the stack ÷ directly."""
APART_SECONDS = 0.013
"""Between the starts of two streams: together they would all write in the same millisecond of each token's time."""


@dataclass
class Heard:
    """Milliseconds: from asking to the first token of each stream, and from each token's writing to its reading."""

    first: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def take(self, text: str) -> int:
        """Notes the tokens in a piece of text; gives how many."""
        now = time.monotonic_ns()
        stamps = [int(stamp) for stamp in text.split(";") if stamp]
        self.tokens += [(now - stamp) / 1e6 for stamp in stamps]
        return len(stamps)


async def run(options: Options) -> list[Row]:
    directs, wholes, fronts, spent = [], [], [], []
    async with backend() as url:
        worker = {
            "TIDEGATE_AI_BACKEND": "openai",
            "OPENAI_BASE_URL": f"{url}/v1",
            "TIDEGATE_AI_CONCURRENCY": str(STREAMS),
        }
        async with tidegate(options, worker=worker) as whole:
            for _ in range(options.rounds):
                directs.append(await asking(url))
                wholes.append(await through(whole))
                before = cpu(whole)
                fronts.append(await asking(f"http://127.0.0.1:{whole.server.port}"))
                spent.append([(b - a) / (STREAMS * TOKENS) * 1e6 for a, b in zip(before, cpu(whole), strict=True)])
                options.say(
                    f"direct {told(directs[-1])}; through the stack {told(wholes[-1])}, /v1 {told(fronts[-1])}, "
                    f"{sum(spent[-1]):.0f} µs a token"
                )
    how = (
        f"a backend at {PER_SECOND} tokens/s whose tokens tell when they were written, {STREAMS} streams at once; "
        f"direct {told(directs[-1])}, through the stack {told(wholes[-1])}"
    )
    first, direct_first = ([quantile(each.first, 0.5) for each in rounds] for rounds in (wholes, directs))
    token, direct_token = ([quantile(each.tokens, 0.99) for each in rounds] for rounds in (wholes, directs))
    front, each = [quantile(one.first, 0.5) for one in fronts], [median(part) for part in zip(*spent, strict=True)]
    parts = ", ".join(f"{name} {us:.0f} µs" for name, us in zip(PARTS, each, strict=True))
    return [
        beside("AI answers: time to first token, p50", first, direct_first, FIRST_BAR, "ms", "direct", how=how),
        beside("AI answers: how late a token is, p99", token, direct_token, TOKEN_BAR, "ms", "direct", how=how),
        shown("AI answers through /v1: time to first token, p50", median(front), "ms"),
        shown("AI answers through /v1: CPU of a token", median([sum(one) for one in spent]), "µs", parts),
    ]


def cpu(whole: Tidegate) -> list[float]:
    """Seconds so far of each of PARTS."""
    return [cpu_seconds([pid]) for pid in (whole.nats.run.process.pid, whole.pid("gateway"), whole.pid("ai-worker"))]


def told(heard: Heard) -> str:
    return (
        f"first token p50 {quantile(heard.first, 0.5):.1f} ms, "
        f"a token p50 {quantile(heard.tokens, 0.5):.1f} and p99 {quantile(heard.tokens, 0.99):.1f} ms"
    )


async def every(one: Callable[[int, Heard], Awaitable[None]]) -> Heard:
    """All streams, a little apart."""
    heard = Heard()

    async def later(number: int) -> None:
        await asyncio.sleep(number * APART_SECONDS)
        await one(number, heard)

    await asyncio.gather(*(later(number) for number in range(STREAMS)))
    return heard


async def asking(url: str) -> Heard:
    """OpenAI's API at `url`: the backend's own, or the one that every gateway has."""
    body = {"model": MODEL, "stream": True, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "go"}]}
    async with AsyncExitStack() as stack:
        # Made before the first asks: a client takes 20 ms of this process, which would hold up the others' tokens.
        clients = [await stack.enter_async_context(httpx.AsyncClient(timeout=60)) for _ in range(STREAMS)]
        for http in clients:
            (await http.get(f"{url}/readyz")).raise_for_status()  # the connection is there, as the worker's is

        async def ask(number: int, heard: Heard) -> None:
            asked, first = time.monotonic(), True
            async with aconnect_sse(clients[number], "POST", f"{url}/v1/chat/completions", json=body) as stream:
                async for event in stream.aiter_sse():
                    if event.data == "[DONE]":
                        return
                    text = json.loads(event.data)["choices"][0]["delta"].get("content") or ""
                    if heard.take(text) and first:
                        heard.first.append((time.monotonic() - asked) * 1000)
                        first = False

        return await every(ask)


async def through(whole: Tidegate) -> Heard:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(whole, number)) for number in range(STREAMS)]

        async def ask(number: int, heard: Heard) -> None:
            body = {"prompt": "go", "max_tokens": TOKENS, "client_id": f"o{number}"}
            asked = time.monotonic()
            (await whole.http.post("/api/ai/chat", json=body)).raise_for_status()
            first = True
            async for event in streams[number]:
                if event.event == "ai_error":
                    raise RuntimeError(event.data)
                if event.event == "ai_response":
                    data = json.loads(event.data)
                    if heard.take(data["content"]) and first:
                        heard.first.append((time.monotonic() - asked) * 1000)
                        first = False
                    if data["done"]:
                        return

        return await every(ask)


@asynccontextmanager
async def listening(whole: Tidegate, number: int) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """The client's stream, which is open."""
    async with httpx.AsyncClient(timeout=60) as http:
        url = f"http://127.0.0.1:{whole.server.port}/api/sse"
        async with aconnect_sse(http, "GET", url, params={"client_id": f"o{number}"}) as stream:
            events = stream.aiter_sse()
            await anext(events)
            yield events


@asynccontextmanager
async def backend() -> AsyncIterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with running(sys.executable, "-m", "benchmarks.paced_endpoint", str(port)), httpx.AsyncClient() as http:

        async def ready() -> bool:
            try:
                return (await http.get(f"{url}/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(ready, "the backend listens", 20)
        yield url
