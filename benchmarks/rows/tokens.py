"""Chats that all stream at once: how late a token is against the pace at which the model makes them."""

from __future__ import annotations

import array
import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ai_worker.models.scripted import THOUGHTS
from benchmarks.accounting import cpu_seconds
from benchmarks.figures import Row, Yardstick, held, quantile
from benchmarks.options import Options
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import LoadClient, load_client
from benchmarks.yardsticks import direct_chats

BAR = 0.35
"""Chats that no token is late in ÷ those that one process of the backend could write by itself."""
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.1)
"""Of as many as the bar asks for: tried in turn until no token is late."""
PER_SECOND = 50
SECONDS = 8.0
LATE_MS = 100.0
WORKER = {
    "TIDEGATE_AI_BACKEND": "scripted",
    "TIDEGATE_SCRIPTED_THINK_SECONDS": "0",
    "TIDEGATE_SCRIPTED_TOKEN_SECONDS": str(1 / PER_SECOND),
}
CONTENT = '"content":"'
THOUGHT = sum(len(thought) for thought in THOUGHTS["en"])
"""Characters that come before the answer, in events of their own and at no pace."""

Piece = tuple[int, int, int]
"""Stream, tokens in the event, nanosecond at which it was read."""


async def run(options: Options) -> list[Row]:
    """Asks for as many chats as the bar does on this machine, then for fewer until no token is late."""
    direct = await direct_chats(options)
    wanted = math.ceil(BAR * direct)
    carried, tried = 0, []
    worker = {**WORKER, "TIDEGATE_AI_CONCURRENCY": str(wanted)}
    async with tidegate(options, worker=worker) as whole:
        for share in SHARES:
            chats = math.ceil(wanted * share)
            late, text = await talk(whole, options, chats)
            tried.append(f"{chats} chats: {text}")
            options.say(tried[-1])
            if late <= LATE_MS:
                carried = chats
                break
    after = await direct_chats(options)
    how = f"scripted backend, each token late against a fixed pace of {PER_SECOND}/s, {SECONDS:g} s; " + "; ".join(
        tried
    )
    how += f"; the direct backend's chats were {after:.0f} after that"
    figure = f"tokens: chats at {PER_SECOND}/s each, p99 at most {LATE_MS:.0f} ms late"
    return [held(figure, carried, BAR, "chats", Yardstick("direct backend", (direct,), "chats"), how=how, least=True)]


async def talk(whole: Tidegate, options: Options, chats: int) -> tuple[float, str]:
    """The 99th percentile of lateness in ms, and all of it in words."""
    async with load_client(options.build, whole.server.port, whole.server.ready, CONTENT, measure_text=True) as client:
        await client.open(chats, f"{whole.server.path}?client_id=t%d")
        await client.record(int(chats * PER_SECOND * SECONDS * 4))
        before = {name: cpu_seconds([whole.pid(name)]) for name in whole.processes}
        nats = cpu_seconds([whole.nats.run.process.pid])
        jobs = await asyncio.gather(*(start(whole, number) for number in range(chats)))
        await client.wait(1 << 40, SECONDS)
        shares = [f"{name} {(cpu_seconds([whole.pid(name)]) - cpu) / SECONDS:.0%}" for name, cpu in before.items()]
        shares.append(f"nats {(cpu_seconds([whole.nats.run.process.pid]) - nats) / SECONDS:.0%}")
        pieces = await recorded(client, options.folder("tokens") / "pieces")
        await asyncio.gather(*(whole.http.delete(f"/api/ai/chat/{job}") for job in jobs))
    late = lateness(pieces, 1000 / PER_SECOND, THOUGHT)
    if not late:
        raise RuntimeError("no token came")
    p99 = quantile(late, 0.99)
    text = (
        f"{len(late):,} tokens in {len(pieces):,} events, p50 {quantile(late, 0.5):.0f} ms, p99 {p99:.0f} ms, "
        f"most {max(late):.0f} ms (CPU: {', '.join(shares)})"
    )
    return p99, text


async def start(whole: Tidegate, number: int) -> str:
    """Asks for an endless answer; gives the job's id."""
    body = {"prompt": "[long] go on", "client_id": f"t{number}"}
    answer = await whole.http.post("/api/ai/chat", json=body)
    answer.raise_for_status()
    return str(answer.json()["job_id"])


async def recorded(client: LoadClient, file: Path) -> list[Piece]:
    await client.dump(file)
    numbers = array.array("Q", file.read_bytes())
    return [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers), 3)]


def lateness(pieces: Iterable[Piece], period_ms: float, before: int = 0) -> list[float]:
    """How many ms each token came after its time. A stream's pace is set by its most punctual token.

    `pieces` are in the order of reading; tokens of one piece came together. The first `before` of a stream are no
    tokens.
    """
    arrivals: dict[int, list[float]] = defaultdict(list)
    for stream, tokens, at in pieces:
        arrivals[stream] += itertools.repeat(at / 1e6, tokens)
    late = []
    for times in arrivals.values():
        offsets = [at - number * period_ms for number, at in enumerate(times[before:])]
        if not offsets:
            continue
        start = min(offsets)
        late += [offset - start for offset in offsets]
    return late
