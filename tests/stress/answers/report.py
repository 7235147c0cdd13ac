"""What an AI scenario came to, as a row of the same table."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.stress.answers.accounts import judge
from tests.stress.answers.scenarios import AI_SCENARIOS
from tests.stress.answers.world import AiWorld, ai_world
from tests.stress.ledger import Verdict
from tests.stress.report import Row, gaps, noted


async def run_ai(name: str, seed: int, seconds: float) -> Row:
    """One scenario in a world of its own. Raises where the world itself does not work."""
    scenario, env = AI_SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="tidegate-stress-") as data:
        async with ai_world(Path(data), seed, env) as made:
            began = time.monotonic()
            with noted(made.problems):
                await scenario(made, seconds)
            await made.settle()
            took = time.monotonic() - began
            await made.leave()
            return _row(name, made, took)


def _row(name: str, world: AiWorld, seconds: float) -> Row:
    total, problems = Verdict(), list(world.problems)
    for watcher in world.watchers:
        verdict, wrong = judge(watcher.seen)
        total.add(verdict)
        problems += wrong
    problems += gaps(total)
    if not world.watchers:
        problems.append("nobody watched")
    numbers = (len(world.watchers), *(vars(total)[each] for each in ("delivered", "lost", "duplicated", "disordered")))
    cells = (
        name,
        *(str(number) for number in (*numbers, total.foreign, total.gaps)),
        str(sum(max(0, watcher.reconnects) for watcher in world.watchers)),
        *("-", "-", "-"),
        f"{total.delivered / seconds:.0f}",
        f"{len(world.jobs)} answers",
    )
    return Row(name, total, problems, cells)
