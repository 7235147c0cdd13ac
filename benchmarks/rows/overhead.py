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

from benchmarks.figures import Row, compared, median, number, quantile
from benchmarks.options import Options
from benchmarks.paced_endpoint import PER_SECOND
from benchmarks.tidegate import Tidegate, tidegate
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.waiting import until

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
    directs, wholes = [], []
    async with backend() as url:
        worker = {
            "TIDEGATE_AI_BACKEND": "openai",
            "OPENAI_BASE_URL": f"{url}/v1",
            "TIDEGATE_AI_CONCURRENCY": str(STREAMS),
        }
        async with tidegate(options.folder("nats"), worker=worker) as whole:
            for _ in range(options.rounds):
                directs.append(await directly(url))
                wholes.append(await through(whole))
                options.say(f"direct {told(directs[-1])}; through the stack {told(wholes[-1])}")
    how = (
        f"a backend at {PER_SECOND} tokens/s whose tokens tell when they were written, {STREAMS} streams at once; "
        f"direct {told(directs[-1])}, through the stack {told(wholes[-1])}; median of {options.rounds} rounds"
    )
    first, direct_first = ([quantile(each.first, 0.5) for each in rounds] for rounds in (wholes, directs))
    token, direct_token = ([quantile(each.tokens, 0.99) for each in rounds] for rounds in (wholes, directs))
    return [
        beside("AI answers: time to first token, p50", first, direct_first, FIRST_BAR, how),
        beside("AI answers: how late a token is, p99", token, direct_token, TOKEN_BAR, how),
    ]


def beside(figure: str, through: list[float], direct: list[float], bar: float, how: str) -> Row:
    """The median of the ratios within a round."""
    ratio = median([one / other for one, other in zip(through, direct, strict=True)])
    yardstick = f"direct: {number(median(direct), 'ms')}"
    return compared(figure, ratio, bar, number(median(through), "ms"), yardstick, how=how)


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


async def directly(url: str) -> Heard:
    body = {"model": "", "stream": True, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "go"}]}
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
                    text = json.loads(event.data)["choices"][0]["delta"].get("content", "")
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
