"""A broadcast to all connections at a steady rate: what it costs and how long it takes, beside the limit and peers."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.figures import Row, held, median, missing, number
from benchmarks.options import Options
from benchmarks.peers import PEERS
from benchmarks.server import NotHad, Server, event, limit
from benchmarks.tidegate import tidegate
from benchmarks.tools import LoadClient, load_client

BARS = {"limit": 1.3, "Nchan": 0.7, "Pushpin": 0.2, "sse-starlette": 0.15}
RATE = 1.25
"""Broadcasts a second: a queue per client takes 0.6 s for each."""
BROADCASTS = 8
"""In a round, for each server."""
QUIET = {"TIDEGATE_HEARTBEAT_SECONDS": "3600", "TIDEGATE_IDLE_SECONDS": "0"}
"""Nobody sends heartbeats meanwhile: they are no events, and the limit and Nchan have none."""


@dataclass
class Measured:
    """A server and what it came to, a figure for each round."""

    server: Server
    client: LoadClient
    kib_per_connection: float
    accept_us: float
    cpu_us: list[float] = field(default_factory=list)
    beside_us: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    short: int = 0
    """Events that a peer did not deliver."""


async def run(options: Options) -> list[Row]:
    """All servers hold their connections all the time; in each round each gets its broadcasts, one after the other."""
    absent: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        all_of_them = [await join(await stack.enter_async_context(limit(options.build)), options, stack)]
        whole = await stack.enter_async_context(tidegate(options.folder("nats"), QUIET))
        all_of_them.append(await join(whole.server, options, stack))
        for name, start in PEERS.items():
            if options.peers and name not in options.peers:
                absent[name] = "left out by --peers"
                continue
            try:
                all_of_them.append(await join(await stack.enter_async_context(start(options)), options, stack))
            except NotHad as why:
                absent[name] = str(why)
        for _ in range(options.rounds):
            for each in all_of_them:
                await measure(each, options)
    return rows({each.server.name: each for each in all_of_them}, absent, options)


async def join(server: Server, options: Options, stack: AsyncExitStack) -> Measured:
    """`server` with all its connections."""
    client = await stack.enter_async_context(load_client(options.build, server.port, server.ready))
    await client.open(min(100, options.connections // 10), server.path)  # what they load is no stream's
    await client.close()
    await asyncio.sleep(1)
    memory, cpu = server.resident(), server.cpu()
    await client.open(options.connections, server.path)
    await asyncio.sleep(2)
    spent = server.cpu() - cpu
    kib = (server.resident() - memory) / options.connections
    options.say(f"{server.name}: {options.connections} connections, {kib:.1f} KiB each")
    return Measured(server, client, kib, spent / options.connections * 1e6)


async def measure(one: Measured, options: Options) -> None:
    """A round."""
    await one.client.reset()
    expected = BROADCASTS * options.connections
    cpu, beside = one.server.cpu(), one.server.cpu_beside()
    start = time.monotonic()
    for turn in range(BROADCASTS):
        await asyncio.sleep(max(0.0, start + turn / RATE - time.monotonic()))
        await one.server.publish(event())
    account = await one.client.wait(expected, 5)
    if account.delivered != expected:
        if one.server.name in ("limit", "Tidegate"):
            raise RuntimeError(f"{one.server.name}: {account.delivered} of {expected} events came: {account}")
        one.short += expected - account.delivered
    one.cpu_us.append((one.server.cpu() - cpu) / account.delivered * 1e6)
    one.beside_us.append((one.server.cpu_beside() - beside) / account.delivered * 1e6)
    one.p50_ms.append(account.p50_ms)
    one.p99_ms.append(account.p99_ms)
    options.say(
        f"{one.server.name}: {one.cpu_us[-1]:.2f} µs an event, p50 {account.p50_ms:.0f} ms, p99 {account.p99_ms:.0f} ms"
    )


def rows(measured: dict[str, Measured], absent: dict[str, str], options: Options) -> list[Row]:
    ours = measured["Tidegate"]
    cost = median(ours.cpu_us)
    how = f"{options.connections} connections, {RATE:g}/s, no heartbeats, median of {options.rounds} rounds"
    found = []
    for name, bar in BARS.items():
        figure = f"broadcast, CPU per event ÷ {name}"
        if name in measured:
            theirs = median(measured[name].cpu_us)
            found.append(held(figure, cost / theirs, bar, peer=f"{name}: {theirs:.2f} µs", how=f"{cost:.2f} µs; {how}"))
        else:
            found.append(missing(figure, absent[name], f"≤ {bar}"))
    if "Nchan" in measured:
        theirs = median(measured["Nchan"].p99_ms)
        mine = median(ours.p99_ms)
        text = f"Nchan: {theirs:.0f} ms"
        found.append(held("broadcast, p99 ÷ Nchan's", mine / theirs, 0.7, peer=text, how=f"{mine:.0f} ms; {how}"))
    else:
        found.append(missing("broadcast, p99 ÷ Nchan's", absent["Nchan"], "≤ 0.7"))
    for name, each in measured.items():
        text = f"{median(each.cpu_us):.2f} µs an event"
        if each.server.beside:
            text += f" (publisher-api and NATS: {median(each.beside_us):.2f} more)"
        spread = f"{min(each.cpu_us):.2f} to {max(each.cpu_us):.2f} µs"
        text += f"; p50 {median(each.p50_ms):.0f} ms, p99 {median(each.p99_ms):.0f} ms"
        if name != "limit":
            text += f"; {each.kib_per_connection:.1f} KiB and {number(each.accept_us, 'µs')} a connection"
        if each.short:
            text += f"; {each.short} events did not come"
        found.append(Row(f"broadcast by {name}", text, how=f"rounds: {spread}"))
    found += [Row(f"broadcast by {name}", f"not had: {why}") for name, why in absent.items() if name not in BARS]
    return found
