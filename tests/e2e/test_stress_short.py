"""A short run of the stress program, each time with another seed: it is the seed that a failure names."""

import random

import pytest

from tests.stress.__main__ import run

SCENARIOS = ("cuts", "nats_restart", "feed_cut", "holes", "identity", "mixed")
AI_SCENARIOS = ("ai_crash", "ai_watch", "ai_cancel", "ai_queue", "ai_relay")
"""All of them would take minutes: `make stress` does."""


@pytest.mark.parametrize("scenario", [*SCENARIOS, *AI_SCENARIOS])
@pytest.mark.timeout(120)
async def test_clients_lose_nothing_get_nothing_twice_and_nothing_out_of_order(scenario: str) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    row = await run(scenario, seed, seconds=3, clients=40, rate=30)
    told = f"python -m tests.stress --only {scenario} --seed {seed} --seconds 3 --clients 40: {row.verdict}"
    assert row.verdict.clean, told
    assert not row.problems, f"{told}, {row.problems}"
    assert row.verdict.delivered > 40, told
