"""What is done to the answers."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.stress.answers.accounts import Wanted
from tests.stress.answers.world import ACK_SECONDS, CONCURRENCY, WORKERS, AiWorld
from tests.stress.parts import Part
from tests.stress.proxy import Cut
from tests.support.waiting import until

HOGS_JOBS = 300
OTHERS = 20
AHEAD = OTHERS // 3 + WORKERS * (1 + CONCURRENCY) + 20
"""Of the one client's jobs that may begin before the last of the others': each fourth is taken from the highest level,
each worker may be at such a turn and has jobs in its slots that have no event yet, and the others' come one by one."""


async def crash(world: AiWorld, seconds: float) -> None:
    """Workers are killed with -9 and started again, others paused for longer than they may be silent."""
    asking = asyncio.create_task(_ask(world, seconds, each=0.15, watchers=2))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.3, 1.2))
        worker = world.rng.choice(world.workers)
        if world.rng.random() < 0.5:
            await _killed(world, worker)
        else:
            await _paused(world, worker)
    await asking


async def watch(world: AiWorld, seconds: float) -> None:
    """Many watch each answer, from anywhere in it and after it; their connections are cut, a gateway is killed."""
    asking = asyncio.create_task(_ask(world, seconds, each=0.3, watchers=8, within=5))
    end = time.monotonic() + seconds
    killed = False
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.02, 0.1))
        there = [watcher for watcher in world.watchers if not watcher.done]
        for watcher in world.rng.sample(there, min(3, len(there))):
            world.cut(watcher, world.rng.choice(list(Cut)))
        if not killed and time.monotonic() > end - seconds / 2:
            killed = True
            await world.gateways[0].end(signal.SIGKILL)
            await world.gateways[0].start()
    await asking


async def cancel(world: AiWorld, seconds: float) -> None:
    """Answers are cancelled in the queue, in the middle, twice, by several at once, and when their worker has died."""
    end = time.monotonic() + seconds
    cancels: list[asyncio.Task[None]] = []

    async def later(number: int) -> None:
        wanted = await world.ask(client_id=f"c{number % 5}")
        world.watch(wanted, 2, within=1)
        if number % 4 == 3:
            return  # nobody cancels this one
        await asyncio.sleep(world.rng.choice((0, 0, world.rng.uniform(0, 2.5))))
        await asyncio.gather(*(world.cancel(wanted) for _ in range(world.rng.randint(1, 3))))

    number = 0
    while time.monotonic() < end:
        for _ in range(5):
            cancels.append(asyncio.create_task(later(number)))
            number += 1
        await asyncio.sleep(world.rng.uniform(0.2, 0.6))
        if world.rng.random() < 0.3:
            await _killed(world, world.rng.choice(world.workers))
    await asyncio.gather(*cancels)


async def queue(world: AiWorld, seconds: float) -> None:
    """One client asks for hundreds, others for one each; the queue is full for some; deadlines pass."""
    most: list[int] = []
    looking = asyncio.create_task(_look(world, most))
    tiny = {"max_tokens": 20}
    hogs = await asyncio.gather(*(world.ask(client_id="hog", **tiny) for _ in range(HOGS_JOBS)))
    for wanted in hogs:
        world.watch(wanted)
    others = await asyncio.gather(*(world.ask(client_id=f"other{number}", **tiny) for number in range(OTHERS)))
    for wanted in others:
        world.watch(wanted)
    await until(lambda: len(_firsts(world, others)) == OTHERS, "all the others have begun", 60)
    record = (await world.http.get(f"/api/ai/chat/{others[0].job_id}")).json()
    queued, last = int(record["start"].rpartition("-")[2]), max(_firsts(world, others))
    for _ in range(10):
        hurried = await world.ask(client_id="hog", deadline_seconds=0.05)
        hurried.hurried = True
        world.watch(hurried)
    await _overfill(world)
    await world.settle()
    looking.cancel()
    ahead = sum(queued < sequence < last for sequence in _firsts(world, hogs))
    if ahead > AHEAD:
        world.problems.append(f"{ahead} of the one client's jobs began before the others' ({AHEAD} may)")
    if max(most, default=0) > CONCURRENCY:
        world.problems.append(f"a worker had {max(most)} jobs in hand, of {CONCURRENCY}")


async def relay(world: AiWorld, seconds: float) -> None:
    """NATS is killed and started again in the middle of answers, and connections to it are cut."""
    asking = asyncio.create_task(_ask(world, seconds, each=0.2, watchers=2))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.3, 1))
        if world.rng.random() < 0.3:
            await world.nats.end(signal.SIGKILL)
            await asyncio.sleep(world.rng.uniform(0, 0.7))
            await world.nats.start()
        else:
            world.rng.choice([world.desk, world.desk, world.back, world.feed]).cut_all(world.rng.choice(list(Cut)))
    await asking


async def _ask(world: AiWorld, seconds: float, each: float, watchers: int, within: float = 1.0) -> None:
    end = time.monotonic() + seconds
    asking: list[asyncio.Task[None]] = []

    async def one(number: int) -> None:
        target = {} if number % 3 == 0 else {"client_id": f"c{number % 7}"}
        world.watch(await world.ask(**target), watchers, within)

    while time.monotonic() < end:
        asking.append(asyncio.create_task(one(len(asking))))
        await asyncio.sleep(each)
    await asyncio.gather(*asking)


async def _killed(world: AiWorld, worker: Part) -> None:
    await worker.end(signal.SIGKILL)
    await asyncio.sleep(world.rng.uniform(0, 0.5))
    await worker.start()


async def _paused(world: AiWorld, worker: Part) -> None:
    assert worker.run is not None
    worker.run.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(ACK_SECONDS + world.rng.uniform(0.5, 2))
    worker.run.process.send_signal(signal.SIGCONT)


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
    answers = await asyncio.gather(*(world.http.post("/api/ai/chat", json=body) for _ in range(500)))
    full = [answer for answer in answers if answer.status_code == 503]
    if not full:
        world.problems.append("the queue was never full")
    for answer in full:
        if "retry-after" not in answer.headers or "queued" not in answer.json():
            world.problems.append(f"a refusal does not say when to come back: {answer.text}")
            return
