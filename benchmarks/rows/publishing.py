"""How many durable events one publisher-api takes: one for each request, and in batches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.accounting import cpu_seconds
from benchmarks.figures import Row, Yardstick, held, median
from benchmarks.options import Options
from benchmarks.poster import Posted, posted
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.yardsticks import echo

SECONDS = 6.0
SEND_CONNECTIONS = 32
BATCH_CONNECTIONS = 4
BATCH_LINES = 1000
SENDS_BAR, BATCHES_BAR = 6.5, 0.8
"""CPU of publisher-api for an event ÷ that of a bare echo for a request, which the same program posts."""
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
    echoes = [await echo(options)]
    async with tidegate(options) as whole:
        sends, batches = [], []
        for _ in range(options.rounds):
            sends.append(await measured(whole, options, SEND_CONNECTIONS, 0))
            batches.append(await measured(whole, options, BATCH_CONNECTIONS, BATCH_LINES))
    echoes.append(await echo(options))
    stick = Yardstick("bare echo", tuple(each.cpu_us for each in echoes))
    return [
        row("publisher-api: CPU of a durable send", sends, SENDS_BAR, stick, SEND_CONNECTIONS),
        row(
            f"publisher-api: CPU of a durable event in a batch of {BATCH_LINES:,}",
            batches,
            BATCHES_BAR,
            stick,
            BATCH_CONNECTIONS,
        ),
    ]


async def profiles(options: Options) -> list[Row]:
    return [
        Row(f"publisher-api's time, {name}", await profiled(options, connections, lines), how=HOW_PROFILED)
        for name, connections, lines in (("sends", SEND_CONNECTIONS, 0), ("batches", BATCH_CONNECTIONS, BATCH_LINES))
    ]


async def profiled(options: Options, connections: int, lines: int) -> str:
    """Where publisher-api's thread was, by package, while it was posted to."""
    env = {"PROFILED_MODULE": "publisher_api"}
    async with tidegate(options, env, publisher="benchmarks.profiled") as whole:
        await measured(whole, options, connections, lines)
        service = whole.processes["publisher-api"]
        await service.stop()
        found = next(line.removeprefix("PROFILE ") for line in service.output if line.startswith("PROFILE "))
    profile = json.loads(found)
    for name, share in profile["functions"]:
        options.say(f"{share:6.1%} {name}")
    return ", ".join(f"{name} {share:.0%}" for name, share in profile["packages"] if share >= 0.01)


async def measured(whole: Tidegate, options: Options, connections: int, lines: int) -> Round:
    """One run of the poster. Raises RuntimeError where an event is refused."""
    port = urlsplit(whole.publisher_url).port
    assert port is not None
    publisher, nats = whole.pid("publisher-api"), whole.nats.run.process.pid
    before = cpu_seconds([publisher]), cpu_seconds([nats])
    result = await posted(port, connections, SECONDS, lines)
    spent = cpu_seconds([publisher]) - before[0], cpu_seconds([nats]) - before[1]
    each = 1e6 / result.events
    made = Round(result, spent[0] * each, spent[1] * each, result.cpu_seconds * each, spent[0] / result.seconds)
    options.say(f"{made.rate:,.0f}/s: publisher-api {made.publisher_us:.0f} µs, NATS {made.nats_us:.0f} µs an event")
    return made


def row(figure: str, rounds: list[Round], bar: float, stick: Yardstick, connections: int) -> Row:
    """One process takes as many a second as this CPU lets it."""
    publisher, nats, poster, busy, rate = (
        median([getattr(each, name) for each in rounds])
        for name in ("publisher_us", "nats_us", "poster_us", "busy", "rate")
    )
    p99 = median([each.posted.p99_ms for each in rounds])
    how = (
        f"{rate:,.0f}/s over {connections} connections, publisher-api busy {busy:.0%} of a core; CPU an event: "
        f"NATS {nats:.0f} µs, load generator {poster:.0f} µs; p99 of a request {p99:.0f} ms; "
        f"median of {len(rounds)} rounds"
    )
    return held(figure, publisher, bar, "µs", stick, how=how)
