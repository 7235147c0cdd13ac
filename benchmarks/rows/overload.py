"""More events than there is time for: a hundred durable broadcasts a second to all connections, for three seconds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.figures import Row, Yardstick, held, missing, shown
from benchmarks.options import Options
from benchmarks.peers import PEERS
from benchmarks.server import NotHad, Server, event
from benchmarks.tidegate import tidegate
from benchmarks.tools import Account, load_client
from benchmarks.yardsticks import send_us

RATE, SECONDS = 100, 3
BROADCASTS = RATE * SECONDS
PATIENCE_SECONDS = 60.0
FIGURE = "overload, broadcast p99"
BAR = 7.5
"""Times what the C loop takes to send one event to all connections."""


@dataclass
class Outcome:
    account: Account
    cpu_us: float
    offered_seconds: float
    """From the first broadcast until the last was handed over."""
    took_seconds: float
    """From the first broadcast until all events were read, or patience ended."""


async def run(options: Options) -> list[Row]:
    sends = [await send_us(options)]
    async with tidegate(options) as whole:
        ours = await flood(whole.server, options)
    sends.append(await send_us(options))
    expected = BROADCASTS * options.connections
    theirs = "left out by --peers"
    if not options.peers or "Nchan" in options.peers:
        try:
            async with PEERS["Nchan"](options) as nchan:
                theirs = f"Nchan: {told(await flood(nchan, options), expected)}"
        except NotHad as why:
            theirs = f"Nchan: {why}"
    how = f"{BROADCASTS} durable broadcasts, {RATE}/s through publisher-api, {options.connections} connections"
    if ours.account.delivered != expected:
        return [missing(FIGURE, f"{ours.account.delivered:,} of {expected:,} came", f"≤ {BAR}")]
    stick = Yardstick("a pass of the C loop", tuple(each * options.connections / 1000 for each in sends), "ms")
    how = f"{told(ours, expected)}; {how}; {theirs}"
    return [
        held(FIGURE, ours.account.p99_ms, BAR, "ms", stick, how=how),
        shown("overload, gateway CPU per event", ours.cpu_us, "µs"),
    ]


async def flood(server: Server, options: Options) -> Outcome:
    """Offers all broadcasts on time, whether or not the ones before were taken."""
    expected = BROADCASTS * options.connections
    async with load_client(options.build, server.port, server.ready) as client:
        await client.open(options.connections, server.path)
        await asyncio.sleep(2)
        await server.publish(event())
        await client.wait(options.connections, 10)
        await client.reset()
        cpu, start = server.cpu(), time.monotonic()
        under_way: list[asyncio.Future[None]] = []
        for turn in range(BROADCASTS):
            await asyncio.sleep(max(0.0, start + turn / RATE - time.monotonic()))
            under_way.append(asyncio.ensure_future(server.publish(event())))
        offered = time.monotonic() - start
        account = await client.wait(expected, PATIENCE_SECONDS)
        took = time.monotonic() - start
        spent = server.cpu() - cpu
        await asyncio.gather(*under_way)
    outcome = Outcome(account, spent / max(1, account.delivered) * 1e6, offered, took)
    options.say(f"{server.name}: {told(outcome, expected)}")
    return outcome


def told(outcome: Outcome, expected: int) -> str:
    """In words, for the table."""
    account = outcome.account
    share = "all" if account.delivered == expected else f"{account.delivered / expected:.1%}"
    offered = f"offered in {outcome.offered_seconds:.1f} s"
    return (
        f"{share} of {expected:,} delivered in {outcome.took_seconds:.1f} s ({offered}), "
        f"p50 {account.p50_ms / 1000:.2f} s, p99 {account.p99_ms / 1000:.2f} s, {outcome.cpu_us:.2f} µs an event"
    )
