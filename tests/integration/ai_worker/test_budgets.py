"""What a worker does about the limits of whoever has asked."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from tests.integration.ai_worker.support import FAST, Desk, desk, office, worker
from tests.support.waiting import until
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.contract.budget import Budget, Tokens, budget_of
from tidegate_common.contract.jobs import Job, JobStatus
from tidegate_common.contract.principal import JobRights, Principal

RIGHTS = JobRights(max_tokens=500, tokens_per_day=10_000)
ANN = Principal("user:ann", subject="ann", jobs=RIGHTS)
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


async def test_no_kind_of_job_gets_more_tokens_than_its_asker_may_have(tmp_path: Path) -> None:
    """A handler need not know of the limit, and `params` of a kind may have no field for one."""
    async with office(tmp_path) as asking:
        await asking.put("text", "transform", {"text": "Hello", "instruction": "Translate"}, max_tokens=7)
        last = await asking.end("text")
        assert (last.data["finish_reason"], last.data["usage"]["completion_tokens"]) == ("length", 7)
        await asking.put("chat", "chat", {**CHAT, "max_tokens": 20}, max_tokens=7)
        assert (await asking.end("chat")).data["usage"]["completion_tokens"] == 7
        await asking.put("less", "chat", {**CHAT, "max_tokens": 3}, max_tokens=7)
        assert (await asking.end("less")).data["usage"]["completion_tokens"] == 3


async def reserve(asking: Desk, job_id: str) -> float:
    """As whoever submits the job does before it; gives the job's time."""
    await ensure_streams(asking.bus, StreamLimits(identity=True), update=True)
    job = Job(job_id=job_id, kind="chat", tail="client.ann", params=CHAT, created=time.time(), budget=budget_of(ANN))
    await Budgets(asking.bus, asking.states, Leaders(asking.bus)).reserve(job, Tokens(100, 500), RIGHTS)
    return job.created


async def budget(asking: Desk) -> Budget:
    entry = await Bucket(asking.bus, "TG_BUDGETS").get(budget_of(ANN))
    assert entry is not None
    return msgspec.json.decode(entry.value or b"", type=Budget)


async def refuse_budgets(asking: Desk, refuse: bool) -> None:
    """The bucket takes nothing any more, or all that it is given."""
    config = (await asking.bus.api.call("STREAM.INFO.KV_TG_BUDGETS"))["config"]
    await asking.bus.api.call("STREAM.UPDATE.KV_TG_BUDGETS", {**config, "max_msg_size": 1 if refuse else -1})


async def test_a_worker_notes_what_a_job_has_used(tmp_path: Path) -> None:
    async with office(tmp_path) as asking:
        created = await reserve(asking, "j1")
        await asking.put("j1", "chat", CHAT, created=created, budget=budget_of(ANN))
        used = (await asking.end("j1")).data["usage"]

        async def settled() -> bool:
            return not (await budget(asking)).open

        await until(settled, "the budget is settled")
        assert (await budget(asking)).spent == sum(used.values()) > 0


async def test_a_worker_that_is_killed_between_the_end_and_the_budget_leaves_that_to_the_next(tmp_path: Path) -> None:
    env = {**FAST, "TIDEGATE_AI_ACK_SECONDS": "1.5"}
    async with desk(tmp_path) as (nats, asking):
        created = await reserve(asking, "j1")
        async with worker(nats, env) as (dying, _):
            await refuse_budgets(asking, True)
            await asking.put("j1", "chat", CHAT, created=created, budget=budget_of(ANN))
            used = (await asking.end("j1")).data["usage"]
            dying.process.kill()
            await dying.process.wait()
        state = await asking.state("j1", JobStatus.DONE)
        assert not state.end
        assert (await budget(asking)).spent == 0
        await refuse_budgets(asking, False)
        async with worker(nats, env):
            await asking.queue_empty()
            assert (await asking.states.get("j1")).end
        found = await budget(asking)
        assert (found.spent, found.open) == (sum(used.values()), {})
        assert sum(bool(event.data.get("done")) for event in asking.of("j1")) == 1
