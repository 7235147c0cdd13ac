"""`python -m tests.stress [--seed N] [--seconds S] [--clients N] [--rate N] [--only a,b] [--repeat N]`.

Exit code 1 where one event was lost, doubled, out of order or for others, or a scenario found another problem.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.stress.answers.report import run_ai
from tests.stress.answers.scenarios import AI_SCENARIOS
from tests.stress.report import Row, noted, row, table
from tests.stress.scenarios import SCENARIOS
from tests.stress.world import world

NAMES = (*SCENARIOS, *AI_SCENARIOS)


async def run(name: str, seed: int, seconds: float, clients: int, rate: float) -> Row:
    """One scenario in a world of its own. Raises where the world itself does not work."""
    if name in AI_SCENARIOS:
        random.seed(seed)
        return await run_ai(name, seed, seconds)
    scenario = SCENARIOS[name]
    random.seed(seed)
    with tempfile.TemporaryDirectory(prefix="tidegate-stress-") as data:
        made_of = (scenario.env, scenario.drops, scenario.receive_bytes)
        async with world(Path(data), seed, clients, rate, *made_of) as made:
            await made.join(clients, scenario.share, scenario.topics, shipped=scenario.shipped)
            started = time.monotonic()
            made.load.start()
            with noted(made.problems):
                await scenario.run(made, seconds)
            await made.settle()
            took = time.monotonic() - started
            await made.leave()
            return row(name, made, took)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--seconds", type=float, default=10, help="of each scenario")
    parser.add_argument("--clients", type=int, default=100, help="of event streams; AI scenarios have their own")
    parser.add_argument("--rate", type=float, default=30, help="events published a second, likewise")
    parser.add_argument("--only", default=",".join(NAMES), help="scenarios, with commas")
    parser.add_argument("--repeat", type=int, default=1, help="the seed grows by one each time")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    names = chosen.only.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no such scenario: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows: list[Row] = []
    for seed in range(chosen.seed, chosen.seed + chosen.repeat):
        for name in names:
            print(f"seed {seed}: {name}", flush=True)
            rows.append(uvloop.run(run(name, seed, chosen.seconds, chosen.clients, chosen.rate)))
            print("  " + " ".join(rows[-1].cells) + ("" if rows[-1].green else "  RED"), flush=True)
            for problem in rows[-1].problems:
                print(f"  {problem}", flush=True)
    print(table(rows))
    red = [each.name for each in rows if not each.green]
    print(f"seed {chosen.seed}: " + (f"RED: {', '.join(red)}" if red else "0 lost, 0 duplicated, 0 out of order"))
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
