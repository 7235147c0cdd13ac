"""A server with all its connections, and rounds of broadcasts to them at a steady rate."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.figures import median
from benchmarks.options import Options
from benchmarks.server import Server, event
from benchmarks.tools import LoadClient, load_client

COMPLETE = ("limit", "Tidegate")
"""Whose every event has to come. A peer may drop some; that is said."""
QUIET = {"TIDEGATE_HEARTBEAT_SECONDS": "3600", "TIDEGATE_IDLE_SECONDS": "0"}
"""Nobody sends heartbeats meanwhile: they are no events, and the limit and Nchan have none."""


@dataclass(frozen=True)
class Pace:
    """How a round goes."""

    rate: float
    """Broadcasts a second."""
    broadcasts: int


@dataclass
class Rounds:
    """A figure for each round."""

    cpu_us: list[float] = field(default_factory=list)
    beside_us: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def told(self) -> str:
        """Medians, and the range of what decides, in words."""
        beside = f" (publisher-api and NATS: {median(self.beside_us):.2f} more)" if any(self.beside_us) else ""
        return (
            f"{median(self.cpu_us):.2f} µs an event{beside}, {min(self.cpu_us):.2f} to {max(self.cpu_us):.2f}; "
            f"p50 {median(self.p50_ms):.0f} ms, p99 {median(self.p99_ms):.0f} ms"
        )


@dataclass
class Measured:
    """A server and what it came to."""

    server: Server
    client: LoadClient
    kib_per_connection: float
    accept_us: float
    rounds: dict[Pace, Rounds] = field(default_factory=dict)
    short: int = 0
    """Events that did not come."""


async def join(server: Server, options: Options, stack: AsyncExitStack) -> Measured:
    """`server` with all its connections. Raises RuntimeError where it refuses one."""
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


async def measure(one: Measured, pace: Pace, options: Options) -> None:
    """A round. Raises RuntimeError where an event of ours is missing."""
    await one.client.reset()
    expected = pace.broadcasts * options.connections
    cpu, beside = one.server.cpu(), one.server.cpu_beside()
    start = time.monotonic()
    for turn in range(pace.broadcasts):
        await asyncio.sleep(max(0.0, start + turn / pace.rate - time.monotonic()))
        await one.server.publish(event())
    account = await one.client.wait(expected, 5)
    if account.delivered != expected and one.server.name in COMPLETE:
        raise RuntimeError(f"{one.server.name}: {account.delivered} of {expected} events came: {account}")
    one.short += expected - account.delivered
    found = one.rounds.setdefault(pace, Rounds())
    each = 1e6 / max(1, account.delivered)
    found.cpu_us.append((one.server.cpu() - cpu) * each)
    found.beside_us.append((one.server.cpu_beside() - beside) * each)
    found.p50_ms.append(account.p50_ms)
    found.p99_ms.append(account.p99_ms)
    options.say(
        f"{one.server.name}, {pace.rate:g}/s: {found.cpu_us[-1]:.2f} µs an event, "
        f"p50 {account.p50_ms:.0f} ms, p99 {account.p99_ms:.0f} ms"
    )
