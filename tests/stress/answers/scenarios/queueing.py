"""More jobs than workers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.stress.answers.accounts import Wanted
from tests.stress.answers.world import CONCURRENCY, WORKERS, AiWorld
from tests.support.waiting import until

BOUNDED = {"TIDEGATE_JOBS_MAX_QUEUED": "400"}
TINY: dict[str, Any] = {"max_tokens": 20}

HOGS_JOBS = 300
OTHERS = 20
SLOTS = WORKERS * (1 + CONCURRENCY)
"""Jobs that are taken and have no event yet, or are at their turn: one more for each worker."""

AHEAD = OTHERS // 3 + SLOTS + 20
"""Of the one client's jobs that may begin before the last of the others': each fourth is taken from the levels above
the lowest, and the others' come one by one."""

FLOOD = 150
NAMELESS_AHEAD = OTHERS // 3 + SLOTS + 40
"""Likewise, of those that name nobody, of which some stand on the lower levels in their own right."""

SINGLES = 160
FEW = 5
"""Clients with three jobs each."""

BEGUN_SECONDS = 60.0

FLOODS = 4
"""Of 500 jobs each, one after the other until the queue has been full."""


async def queue(world: AiWorld, seconds: float) -> None:
    """One client asks for hundreds, others for one each; the queue is full for some; deadlines pass."""
    most: list[int] = []
    looking = asyncio.create_task(_look(world, most))
    hogs = await _asked(world, ["hog"] * HOGS_JOBS)
    others = await _asked(world, [f"other{number}" for number in range(OTHERS)])
    await _judge_ahead(world, hogs, others, AHEAD, "the one client's jobs")
    for _ in range(10):
        hurried = await world.ask(client_id="hog", deadline_seconds=0.05)
        hurried.ends |= {"timeout"}
        world.watch(hurried)
    await _overfill(world)
    await world.settle()
    looking.cancel()
    if max(most, default=0) > CONCURRENCY:
        world.problems.append(f"a worker had {max(most)} jobs in hand, of {CONCURRENCY}")


async def shares(world: AiWorld, seconds: float) -> None:
    """Jobs that name nobody do not stand before those of clients that do; and while many come first on the lowest
    level, and one client has hundreds on the highest, those of clients with a few each move too."""
    nameless = await _asked(world, [""] * FLOOD)
    others = await _asked(world, [f"other{number}" for number in range(OTHERS)])
    await _judge_ahead(world, nameless, others, NAMELESS_AHEAD, "jobs that name nobody")
    await world.settle()
    await _asked(world, ["hog"] * FLOOD)
    few = [await _asked(world, [f"few{number}"] * 3) for number in range(FEW)]
    singles = await _asked(world, [f"single{number}" for number in range(SINGLES)])
    await world.settle()
    last = max(sequence for jobs in few for sequence in _firsts(world, jobs))
    if not any(sequence > last for sequence in _firsts(world, singles)):
        world.problems.append("clients with three jobs waited for all of those with one")


async def _asked(world: AiWorld, clients: list[str]) -> list[Wanted]:
    """A job for each of `clients` (``: for nobody), all at once."""
    targets: list[dict[str, Any]] = [{"client_id": client} if client else {} for client in clients]
    jobs = await asyncio.gather(*(world.ask(**TINY, **target) for target in targets))
    for wanted in jobs:
        world.watch(wanted)
    return jobs


async def _judge_ahead(world: AiWorld, hogs: list[Wanted], others: list[Wanted], may: int, what: str) -> None:
    """When all of `others` have begun: so many of `hogs` may have begun since they were queued, and no more."""
    await until(lambda: len(_firsts(world, others)) == len(others), "all the others have begun", BEGUN_SECONDS)
    queued = int((await world.record(others[0]))["start"].rpartition("-")[2])
    last = max(_firsts(world, others))
    ahead = sum(queued < sequence < last for sequence in _firsts(world, hogs))
    if ahead > may:
        world.problems.append(f"{ahead} of {what} began before the others' ({may} may)")


def _firsts(world: AiWorld, jobs: list[Wanted]) -> list[int]:
    """The sequence of the first event of each of `jobs` that has begun."""
    ids = {wanted.job_id for wanted in jobs}
    firsts: dict[str, int] = {}
    for each in world.watchers:
        if each.seen.frames and each.seen.wanted.job_id in ids:
            firsts[each.seen.wanted.job_id] = int((each.seen.frames[0].id or "").rpartition("-")[2])
    return list(firsts.values())


async def _look(world: AiWorld, most: list[int]) -> None:
    while True:
        most += await world.active()
        await asyncio.sleep(0.2)


async def _overfill(world: AiWorld) -> None:
    """More at once than the queue may hold: the rest is refused, and says when to come back."""
    body = {"prompt": "Hello", "max_tokens": 20, "client_id": "flood"}
    full: list[httpx.Response] = []
    for _ in range(FLOODS):  # on a busy machine the workers may be as fast as those who ask
        answers = await asyncio.gather(*(world.http.post("/api/ai/chat", json=body) for _ in range(500)))
        refused = [answer for answer in answers if answer.status_code == 503]
        full = [answer for answer in refused if answer.json()["type"].endswith(":queue-full")]  # or NATS is too slow
        if full:
            break
    else:
        world.problems.append("the queue was never full")
    for answer in full:
        if "retry-after" not in answer.headers or "queued" not in answer.json():
            world.problems.append(f"a refusal does not say when to come back: {answer.text}")
            return
