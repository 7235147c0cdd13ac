"""Two gateway processes on one port: whether an event costs what it costs in one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from benchmarks.accounting import family
from benchmarks.fanout import QUIET, Pace, join, measure
from benchmarks.figures import Row, Yardstick, held, median, missing
from benchmarks.options import Options
from benchmarks.tidegate import tidegate
from gateway.settings import GatewaySettings

FIGURE = "two gateway processes on one port, CPU per event ÷ one's"
PACE = Pace(rate=4, broadcasts=20)
BAR = 1.1
"""The same, within what two runs of the same thing differ by here."""


async def run(options: Options) -> list[Row]:
    if "workers" not in GatewaySettings.__struct_fields__:
        return [missing(FIGURE, "not available: TIDEGATE_WORKERS is not built yet", f"≤ {BAR}")]
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(tidegate(options, QUIET))
        two = await stack.enter_async_context(tidegate(options, {**QUIET, "TIDEGATE_WORKERS": "2"}))
        servers = [await join(each.server, options, stack) for each in (one, two)]
        await asyncio.sleep(1)
        for _ in range(options.rounds):
            for each in servers:
                await measure(each, PACE, options)
        processes = len(family(two.server.roots[0]))
    single, double = (median(each.rounds[PACE].cpu_us) for each in servers)
    late = [median(each.rounds[PACE].p99_ms) for each in servers]
    how = (
        f"over {processes} processes; p99 {late[1]:.0f} ms, {late[0]:.0f} ms in one; "
        f"{options.connections} connections, median of {options.rounds} rounds"
    )
    return [held(FIGURE, double, BAR, "µs", Yardstick("one process", (single,)), how=how)]
