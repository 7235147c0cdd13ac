"""How many durable events one publisher-api takes: one for each request, and in batches."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from benchmarks.accounting import cpu_seconds
from benchmarks.figures import Row, held, median, quantile
from benchmarks.options import Options
from benchmarks.poster import Posted
from benchmarks.tidegate import Tidegate, tidegate

SECONDS = 6.0
SEND_CONNECTIONS = 32
BATCH_CONNECTIONS = 4
BATCH_LINES = 1000
HOW_PROFILED = "samples of its thread by package, C code counted for its caller; a run of its own"


@dataclass
class Round:
    posted: Posted
    publisher_us: float
    nats_us: float
    poster_us: float
    busy: float
    """Part of one core that publisher-api took."""

    @property
    def rate(self) -> float:
        return self.posted.events / self.posted.seconds


async def run(options: Options) -> list[Row]:
    async with tidegate(options.folder("nats")) as whole:
        sends, batches = [], []
        for _ in range(options.rounds):
            sends.append(await posted(whole, options, SEND_CONNECTIONS, 0))
            batches.append(await posted(whole, options, BATCH_CONNECTIONS, BATCH_LINES))
    profiles = [
        Row(f"publisher-api's time, {name}", await profiled(options, connections, lines), how=HOW_PROFILED)
        for name, connections, lines in (("sends", SEND_CONNECTIONS, 0), ("batches", BATCH_CONNECTIONS, BATCH_LINES))
    ]
    return [
        held("publisher-api: durable sends", rate(sends), 2500, "/s", least=True, how=told(sends, SEND_CONNECTIONS)),
        held(
            f"publisher-api: durable events in batches of {BATCH_LINES:,}",
            rate(batches),
            20_000,
            "/s",
            least=True,
            how=told(batches, BATCH_CONNECTIONS),
        ),
        *profiles,
    ]


async def profiled(options: Options, connections: int, lines: int) -> str:
    """Where publisher-api's thread was, by package, while it was posted to."""
    env = {"PROFILED_MODULE": "publisher_api"}
    async with tidegate(options.folder("nats"), env, publisher="benchmarks.profiled") as whole:
        await posted(whole, options, connections, lines)
        service = whole.processes["publisher-api"]
        await service.stop()
        found = next(line.removeprefix("PROFILE ") for line in service.output if line.startswith("PROFILE "))
    profile = json.loads(found)
    for name, share in profile["functions"]:
        options.say(f"{share:6.1%} {name}")
    return ", ".join(f"{name} {share:.0%}" for name, share in profile["packages"] if share >= 0.01)


async def posted(whole: Tidegate, options: Options, connections: int, lines: int) -> Round:
    """One run of the poster. Raises RuntimeError where an event is refused."""
    port = urlsplit(whole.publisher_url).port
    publisher, nats = whole.pid("publisher-api"), whole.nats.run.process.pid
    before = cpu_seconds([publisher]), cpu_seconds([nats])
    command = ("-m", "benchmarks.poster", str(port), str(connections), str(SECONDS), str(lines))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the poster ended with exit code {process.returncode}")
    result = msgspec.json.decode(said, type=Posted)
    if result.refused:
        raise RuntimeError(f"{result.refused} events were refused")
    spent = cpu_seconds([publisher]) - before[0], cpu_seconds([nats]) - before[1]
    each = 1e6 / result.events
    made = Round(result, spent[0] * each, spent[1] * each, result.cpu_seconds * each, spent[0] / result.seconds)
    options.say(f"{made.rate:,.0f}/s: publisher-api {made.publisher_us:.0f} µs, NATS {made.nats_us:.0f} µs an event")
    return made


def rate(rounds: list[Round]) -> float:
    return median([each.rate for each in rounds])


def told(rounds: list[Round], connections: int) -> str:
    """Where the time goes, in words."""
    publisher, nats, poster, busy = (
        median([getattr(each, name) for each in rounds]) for name in ("publisher_us", "nats_us", "poster_us", "busy")
    )
    p99 = median([quantile(each.posted.latencies_ms, 0.99) for each in rounds])
    return (
        f"{connections} connections; CPU an event: publisher-api {publisher:.0f} µs (busy {busy:.0%} of a core), "
        f"NATS {nats:.0f} µs, load generator {poster:.0f} µs; p99 of a request {p99:.0f} ms; "
        f"median of {len(rounds)} rounds"
    )
