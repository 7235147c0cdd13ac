"""A broadcast to all connections at a steady rate: what it costs and how long it takes, beside the limit and peers."""

from __future__ import annotations

from contextlib import AsyncExitStack

from benchmarks.fanout import QUIET, Measured, Pace, Rounds, join, measure
from benchmarks.figures import Row, beside, median, missing, number
from benchmarks.options import Options
from benchmarks.peers import PEERS
from benchmarks.server import NotHad, limit
from benchmarks.tidegate import tidegate

FAST = Pace(rate=4, broadcasts=20)
SLOW = Pace(rate=1.25, broadcasts=8)
"""A queue per client takes 0.6 s for each broadcast to 10,000."""
AT = {"limit": (FAST,), "Tidegate": (FAST, SLOW), "Nchan": (FAST,)}
"""At which pace a server is measured; all others at SLOW. Figures are compared at the same pace only."""
BARS = {"limit": 1.3, "Nchan": 0.7, "Pushpin": 0.2, "sse-starlette": 0.15}
P99_BAR = 0.7
LEFT_OUT = "left out by --peers"


def paces(name: str) -> tuple[Pace, ...]:
    return AT.get(name, (SLOW,))


async def run(options: Options) -> list[Row]:
    """All servers hold their connections all the time; in each round each gets its broadcasts, one after the other.

    Each round starts with another server, so that none always follows the same one.
    """
    absent: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(tidegate(options, QUIET))
        everyone = [await join(whole.server, options, stack)]
        everyone.insert(0, await join(await stack.enter_async_context(limit(options.build)), options, stack))
        for name, start in PEERS.items():
            if options.peers and name not in options.peers:
                absent[name] = LEFT_OUT
                continue
            try:
                everyone.append(await join(await stack.enter_async_context(start(options)), options, stack))
            except (NotHad, RuntimeError) as why:
                absent[name] = str(why)
        for pace in (FAST, SLOW):
            here = [each for each in everyone if pace in paces(each.server.name)]
            for turn in range(options.rounds if len(here) > 1 else 0):
                first = turn % len(here)
                for each in (*here[first:], *here[:first]):
                    await measure(each, pace, options)
    return rows({each.server.name: each for each in everyone}, absent, options)


def rows(measured: dict[str, Measured], absent: dict[str, str], options: Options) -> list[Row]:
    ours = measured["Tidegate"]
    found = []
    for name, bar in BARS.items():
        figure = f"broadcast, CPU per event ÷ {name}"
        if name in measured:
            pace = paces(name)[0]
            mine, theirs = ours.rounds[pace].cpu_us, measured[name].rounds[pace].cpu_us
            found.append(beside(figure, mine, theirs, bar, "µs", name, how=told_pace(pace, options)))
        else:
            found.append(missing(figure, absent[name], f"≤ {bar}"))
    figure = "broadcast, p99 ÷ Nchan's"
    if "Nchan" in measured:
        mine, theirs = ours.rounds[FAST].p99_ms, measured["Nchan"].rounds[FAST].p99_ms
        found.append(beside(figure, mine, theirs, P99_BAR, "ms", "Nchan", how=told_pace(FAST, options)))
        found.append(floor(measured["limit"].rounds[FAST], measured["Nchan"].rounds[FAST]))
    else:
        found.append(missing(figure, absent["Nchan"], f"≤ {P99_BAR}"))
    found += [row for name, each in measured.items() for row in told(name, each)]
    return found + [Row(f"broadcast by {name}", f"not had: {why}") for name, why in absent.items() if name not in BARS]


def told_pace(pace: Pace, options: Options) -> str:
    return f"{options.connections} connections, {pace.rate:g}/s, no heartbeats"


def floor(limit: Rounds, nchan: Rounds) -> Row:
    """Below these ratios nobody can come who calls `send()` for each event and connection: they are the machine's."""
    cpu = median([one / other for one, other in zip(limit.cpu_us, nchan.cpu_us, strict=True)])
    p99 = median([one / other for one, other in zip(limit.p99_ms, nchan.p99_ms, strict=True)])
    text = f"CPU per event {number(cpu)}, p99 {number(p99)}"
    return Row("the limit itself ÷ Nchan", text, how="medians of the same rounds")


def told(name: str, each: Measured) -> list[Row]:
    """A row for each pace; with the first, what a connection costs."""
    found: list[Row] = []
    for pace, rounds in each.rounds.items():
        text = rounds.told()
        if name != "limit" and not found:
            text += f"; {each.kib_per_connection:.1f} KiB and {number(each.accept_us, 'µs')} a connection"
        if each.short:
            text += f"; {each.short} events did not come"
        found.append(Row(f"broadcast by {name}, {pace.rate:g}/s", text, value=median(rounds.cpu_us)))
    return found
