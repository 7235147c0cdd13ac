"""What figures are held against: work that the same machine does in the same minutes, without Tidegate.

A bar in microseconds says as much about the machine as about the code. A bar as a ratio to a yardstick says what the
code costs on any machine. Each yardstick is measured before and after what is held against it, so that drift is seen.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.accounting import cpu_seconds
from benchmarks.fanout import Pace, join, measure
from benchmarks.options import Options
from benchmarks.paced_endpoint import PER_SECOND
from benchmarks.peers.answering import until_answering
from benchmarks.poster import posted
from benchmarks.server import limit
from benchmarks.tools import load_client
from tests.support.ports import free_port
from tests.support.processes import running

SENDS = Pace(rate=4, broadcasts=12)
ECHO_CONNECTIONS = 32
ECHO_SECONDS = 3.0
DIRECT_CHATS = 50
DIRECT_SECONDS = 5.0


async def send_us(options: Options) -> float:
    """CPU of the C loop of `send()` for one event to one connection: the yardstick for work of sockets."""
    async with AsyncExitStack() as stack:
        one = await join(await stack.enter_async_context(limit(options.build)), options, stack)
        await measure(one, SENDS, options)
    return one.rounds[SENDS].cpu_us[0]


@dataclass(frozen=True)
class Echo:
    """A bare Starlette on uvicorn that gives a JSON body back: the yardstick for work of Python and HTTP."""

    cpu_us: float
    """Of the server for one request."""
    per_second: float


async def echo(options: Options) -> Echo:
    port = free_port()
    async with running(sys.executable, "-m", "benchmarks.bare_echo", str(port)) as server:
        await until_answering(port, server)
        await posted(port, ECHO_CONNECTIONS, 0.5, 0)  # what the first requests load is no request's
        before = cpu_seconds([server.process.pid])
        result = await posted(port, ECHO_CONNECTIONS, ECHO_SECONDS, 0)
        spent = cpu_seconds([server.process.pid]) - before
    found = Echo(spent / result.events * 1e6, result.events / result.seconds)
    options.say(f"bare echo: {found.cpu_us:.0f} µs a request, {found.per_second:,.0f}/s")
    return found


async def direct_chats(options: Options) -> float:
    """How many chats at the benchmark's pace one process of the paced backend could write by itself, at most.

    It is reckoned from what a token costs it with a few: the yardstick for how many chats Tidegate carries.
    """
    port = free_port()
    async with running(sys.executable, "-m", "benchmarks.paced_endpoint", str(port)) as backend:
        await until_answering(port, backend)
        async with load_client(options.build, port, marker='"content": "') as client:
            await client.open(DIRECT_CHATS, "/stream")
            before = cpu_seconds([backend.process.pid])
            await client.reset()
            account = await client.wait(1 << 40, DIRECT_SECONDS)
            spent = cpu_seconds([backend.process.pid]) - before
    chats = account.delivered / spent / PER_SECOND
    options.say(f"direct backend: {spent / account.delivered * 1e6:.0f} µs a token, {chats:.0f} chats to a core")
    return chats
