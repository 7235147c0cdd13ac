"""Generated input beside an event loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import random

from hypothesis import strategies as st

from tests.support.generated import holds_for


async def test_what_runs_meanwhile_may_use_random_numbers() -> None:
    """A value is drawn in a thread, while what is tested goes on in the loop's. hypothesis takes its random numbers
    for the strategy's own, and warned of them now and then, which is an error here.
    """
    loop, seen = asyncio.get_running_loop(), []

    async def meanwhile() -> None:
        random.random()

    def drawn(value: int) -> int:
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result()
        return value

    async def check(value: int) -> None:
        seen.append(value)

    await holds_for(st.integers().map(drawn), check, 5)
    assert len(seen) >= 5
