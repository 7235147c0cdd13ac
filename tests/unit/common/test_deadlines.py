"""One timer for many connections, against a model that looks at each of them."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_common.runtime.deadlines import Deadlines

SECONDS = 10.0
STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "restart", "stop"]), st.integers(0, 4), st.floats(0, 12)), max_size=40
)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when it is told to."""

    now = 0.0

    def time(self) -> float:
        return self.now


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_each_is_told_once_when_its_time_is_over_and_nobody_else(steps: list[tuple[str, int, float]]) -> None:
    loop = Clock()
    told: list[int] = []
    due: dict[int, float] = {}
    expected: list[int] = []

    async def run() -> None:
        deadlines = Deadlines(SECONDS, told.append)  # type: ignore[arg-type]
        for action, number, pause in [*steps, ("stop", -1, SECONDS + 1)]:
            getattr(deadlines, action)(number)
            if action == "stop" or (action == "restart" and number in due):
                due.pop(number, None)
            if action != "stop":
                due.setdefault(number, loop.now + SECONDS)
            loop.now += pause
            for _ in range(3):
                await asyncio.sleep(0)
            over = sorted((at, one) for one, at in due.items() if at <= loop.now)
            expected.extend(one for _, one in over)
            for _, one in over:
                del due[one]
            assert sorted(told) == sorted(expected)
            assert len(deadlines) == len(due)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


async def test_a_late_one_may_end_another() -> None:
    told: list[Any] = []

    def late(one: Any) -> None:
        told.append(one)
        deadlines.stop("other")  # type: ignore[arg-type]

    deadlines = Deadlines(0.01, late)
    deadlines.start("one")  # type: ignore[arg-type]
    deadlines.start("other")  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    assert told == ["one"]
