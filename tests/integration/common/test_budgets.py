"""Budgets of tokens and of open jobs, on a real server, with several processes' connections at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from opentelemetry.trace import NoOpTracer

from tests.support.bus import broker, connected
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.cancel import Cancellation
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.finish import End, JobEnds, ended
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.jobs.submit import JobSubmitter
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.budget import MOST_OPEN, Allowance, Budget, Tokens, budget_of
from tidegate_common.contract.ids import new_job_id
from tidegate_common.contract.jobs import JobState, JobStatus, Usage
from tidegate_common.contract.principal import JobRights, Principal
from tidegate_common.errors import (
    BrokerUnavailable,
    BudgetSpent,
    KeyReused,
    Limited,
    NotFound,
    QueueFull,
    TidegateError,
)

LIMITS = StreamLimits(identity=True)
PARAMS: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PROMPT = len(msgspec.json.encode(PARAMS["messages"])) // 4 + 1
EACH = PROMPT + 100
"""What a job of `ann` reserves."""


def ann(tokens: int | None = None, concurrent: int | None = None) -> Principal:
    rights = JobRights(max_tokens=100, tokens_per_day=tokens, concurrent=concurrent)
    return Principal("user:ann", subject="ann", jobs=rights)


@dataclass
class Clock:
    """A process's clock, which a test can set ahead."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Process:
    """What one process has that takes jobs, and ends them."""

    bus: Bus
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        history = History(self.bus)
        publisher = EventPublisher(self.bus, history)
        self.records = JobRecords(self.bus, publisher.leaders)
        self.budgets = Budgets(self.bus, self.records, publisher.leaders, self.clock)
        queue = QueueWriter(self.bus, publisher, self.records)
        self.submitter = JobSubmitter(self.bus, history, queue, self.budgets, NoOpTracer())
        self.ends = JobEnds(self.records, history, publisher, self.budgets)
        self.cancellation = Cancellation(self.bus, self.records, publisher, history)

    async def ask(self, who: Principal, job_id: str = "", request: str = "", told: Any = lambda _: None) -> JobState:
        job = await self.submitter.draft(
            job_id or new_job_id(), "chat", PARAMS, principal=who, owner=who.owner(), request=request
        )
        return await self.submitter.submit(job, who, told)

    async def finish(self, state: JobState, usage: Usage) -> JobState:
        """As a worker does that has run the job."""
        end = End(JobStatus.DONE, 1, usage, "stop")
        state, here = await self.ends.record(state.job_id, lambda found: ended(found, 0, end))
        return await self.ends.complete(state, look=not here)

    async def budget(self, who: Principal) -> Budget:
        entry = await Bucket(self.bus, "TG_BUDGETS").get(budget_of(who))
        return Budget() if entry is None else msgspec.json.decode(entry.value or b"", type=Budget)


@asynccontextmanager
async def processes(data: Path, number: int = 1, limits: StreamLimits = LIMITS) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        server, bus = await stack.enter_async_context(broker(data, limits))
        more = [await stack.enter_async_context(connected(server.url, limits)) for _ in range(number - 1)]
        yield [Process(each) for each in (bus, *more)]


async def outcomes(asked: list[Any]) -> tuple[list[JobState], list[TidegateError]]:
    found = await asyncio.gather(*asked, return_exceptions=True)
    unforeseen = [each for each in found if not isinstance(each, (JobState, TidegateError))]
    assert not unforeseen
    return (
        [each for each in found if isinstance(each, JobState)],
        [each for each in found if isinstance(each, TidegateError)],
    )


async def test_a_thousand_requests_at_once_take_what_there_is_and_no_more(tmp_path: Path) -> None:
    """Four processes write the same document. None of the tokens is given twice, and none is left over."""
    async with processes(tmp_path, 4) as several:
        who = ann(tokens=EACH * 300 + EACH // 2)
        asked = [several[number % 4].ask(who) for number in range(1000)]
        got, refused = await outcomes(asked)
        assert len(got) == 300
        assert {type(error) for error in refused} == {Limited}
        budget = await several[0].budget(who)
        assert budget.reserved == 300 * EACH
        assert (await several[0].bus.jetstream.stream_info("TG_JOBS")).state.messages == 300
        records = (await several[0].bus.jetstream.stream_info("KV_TG_JOBS_STATE")).state.messages
        assert records == 300, "what is refused leaves no record, and no trace of one"


async def test_so_many_jobs_may_be_open_wherever_they_were_asked_for(tmp_path: Path) -> None:
    async with processes(tmp_path, 3) as several:
        who = ann(concurrent=5)
        got, refused = await outcomes([several[number % 3].ask(who) for number in range(60)])
        assert len(got) == 5
        assert {error.limit for error in refused if isinstance(error, Limited)} == {"concurrent"}
        await several[0].finish(got[0], Usage(1, 1))
        await several[1].ask(who)
        with pytest.raises(Limited):
            await several[2].ask(who)


async def test_what_a_job_has_used_takes_the_place_of_what_was_reserved(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(tokens=1000)
        state = await one.ask(who)
        assert (await one.budget(who)).reserved == EACH
        done = await one.finish(state, Usage(7, 30))
        budget = await one.budget(who)
        assert (budget.spent, budget.open) == (37, {})
        await one.ends.complete(replace(done, end=""), look=True)
        assert (await one.budget(who)).spent == 37, "a repeat of the end counts nothing"


async def test_a_worker_that_dies_between_the_budget_and_the_record_settles_once(tmp_path: Path) -> None:
    """Whoever completes the end after it does the step again, and finds it done."""
    async with processes(tmp_path, 2) as (dead, other):
        who = ann(tokens=1000)
        state = await dead.ask(who)
        end = End(JobStatus.DONE, 1, Usage(7, 30), "stop")
        state, _ = await dead.ends.record(state.job_id, lambda found: ended(found, 0, end))
        await dead.budgets.settle(state)  # and no more: it is killed here
        assert not (await other.records.get(state.job_id)).end
        await other.ends.complete(await other.records.get(state.job_id), look=True)
        assert (await other.budget(who)).spent == 37


async def test_a_cancelled_job_gives_back_what_it_has_not_used(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(tokens=EACH)
        state = await one.ask(who)
        with pytest.raises(Limited):
            await one.ask(who)
        await one.cancellation.cancel(state.job_id)
        budget = await one.budget(who)
        assert (budget.spent, budget.open) == (0, {})
        await one.ask(who)


async def test_whoever_cancels_right_before_the_end_pays_for_the_prompt(tmp_path: Path) -> None:
    """Many backends tell how long a prompt was with the last piece. Without that, it counted as nothing."""
    async with processes(tmp_path) as (one,):
        who = ann(tokens=1000)
        state = await one.ask(who)
        end = End(JobStatus.CANCELLED, 40, Usage(0, 40), "cancelled")
        await one.records.change(state.job_id, lambda found: replace(found, attempt=1))
        state, _ = await one.ends.record(state.job_id, lambda found: ended(found, 1, end))
        await one.ends.complete(state, look=False)
        assert (await one.budget(who)).spent == PROMPT + 40


async def test_a_spent_budget_is_told_with_the_time_until_the_next_day(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(tokens=EACH + 10)
        await one.finish(await one.ask(who), Usage(5, 100))
        with pytest.raises(BudgetSpent) as refused:
            await one.ask(who)
        assert refused.value.limit == "tokens_per_day"
        assert 0 <= refused.value.retry_after <= 86_400
        one.clock.ahead = refused.value.retry_after + 1
        await one.ask(who)


async def test_jobs_that_are_open_at_midnight_count_in_the_next_day(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(tokens=2 * EACH + 10)
        over = await one.ask(who)
        await one.finish(await one.ask(who), Usage(5, 50))
        one.clock.ahead = 86_400
        await one.ask(who)
        with pytest.raises(Limited):
            await one.ask(who)
        await one.finish(over, Usage(5, 50))
        budget = await one.budget(who)
        assert (budget.spent, budget.reserved) == (55, EACH)


async def test_another_clock_that_is_behind_does_not_begin_the_day_anew(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (one, behind):
        who = ann(tokens=EACH + 10)
        behind.clock.ahead = -86_400
        await one.finish(await one.ask(who), Usage(5, 100))
        with pytest.raises(BudgetSpent):
            await behind.ask(who)
        with pytest.raises(BudgetSpent):
            await one.ask(who)


async def test_a_repeat_reserves_once_and_is_answered_though_the_budget_is_spent(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (one, other):
        who = ann(tokens=EACH, concurrent=1)
        first = await one.ask(who, "a" * 32, "asked")
        again = await other.ask(who, "a" * 32, "asked")
        assert again == first
        assert (await one.budget(who)).reserved == EACH
        with pytest.raises(KeyReused):
            await one.ask(who, "a" * 32, "something else")
        await one.finish(first, Usage(50, 50))
        assert (await other.ask(who, "a" * 32, "asked")).status is JobStatus.DONE
        budget = await one.budget(who)
        assert (budget.spent, budget.open) == (100, {})


async def test_the_same_request_at_once_reserves_once(tmp_path: Path) -> None:
    async with processes(tmp_path, 4) as several:
        who = ann(tokens=100 * EACH)
        got, refused = await outcomes([several[number % 4].ask(who, "a" * 32, "asked") for number in range(20)])
        assert not refused
        assert len({state.created for state in got}) == 1
        assert (await several[0].budget(who)).reserved == EACH
        assert len((await several[0].budget(who)).open) == 1


async def test_a_job_that_the_queue_refuses_reserves_nothing(tmp_path: Path) -> None:
    async with processes(tmp_path, limits=replace(LIMITS, max_jobs=1)) as (one,):
        who = ann(tokens=1000)
        await one.ask(who)
        with pytest.raises(QueueFull):
            await one.ask(who)
        assert (await one.budget(who)).reserved == EACH


async def test_a_reservation_whose_process_died_before_there_was_a_job_is_dropped(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(concurrent=1)
        assert who.jobs is not None
        job = await one.submitter.draft(new_job_id(), "chat", PARAMS, principal=who)
        await one.budgets.reserve(job, Tokens(5), who.jobs)  # and no more: it is killed here
        with pytest.raises(Limited):
            await one.ask(who)
        one.clock.ahead = 120
        await one.ask(who)
        assert len((await one.budget(who)).open) == 1


async def test_an_end_that_a_release_without_budgets_has_written_is_found(tmp_path: Path) -> None:
    """Such a worker changes the record as it knows it, without the budget's name."""
    async with processes(tmp_path) as (one,):
        who = ann(tokens=1000, concurrent=1)
        state = await one.ask(who)
        await one.records.change(state.job_id, lambda found: replace(found, budget=""))
        await one.finish(state, Usage(7, 30))
        assert (await one.budget(who)).reserved == EACH
        await one.ask(who)
        budget = await one.budget(who)
        assert (budget.spent, budget.reserved) == (37, EACH)


async def test_a_job_that_runs_for_long_stays_open(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(concurrent=1)
        await one.ask(who)
        one.clock.ahead = 3600
        with pytest.raises(Limited):
            await one.ask(who)


async def test_nobody_gets_tokens_while_nats_is_away(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, connected(server.url, LIMITS) as bus:
        one, who = Process(bus), ann(tokens=1000)
        await one.ask(who)
        server.run.process.kill()
        await until(lambda: not bus.connected, "the connection is lost")
        with pytest.raises(BrokerUnavailable):
            await one.ask(who)


async def test_what_can_not_be_read_begins_anew_and_a_job_ends_without_its_bucket(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        who = ann(tokens=1000)
        await Bucket(one.bus, "TG_BUDGETS").put(budget_of(who), b"nothing of ours")
        state = await one.ask(who)
        assert (await one.budget(who)).reserved == EACH
        await one.bus.jetstream.delete_stream("KV_TG_BUDGETS")
        done = await one.finish(state, Usage(1, 1))
        assert done.end
        with pytest.raises(BrokerUnavailable):
            await one.ask(who)


def test_the_fullest_budget_fits_into_a_message_of_nats() -> None:
    budget = Budget(spent=10**12)
    rights = JobRights(max_tokens=10**6, tokens_per_day=10**13)
    for _ in range(MOST_OPEN):
        budget.reserve(f"{new_job_id()}:{time.time()}", Tokens(10**6, 10**7), rights, time.time())
    with pytest.raises(Limited) as refused:
        budget.reserve("one:more", Tokens(1), rights, time.time())
    assert refused.value.limit == "concurrent"
    assert len(msgspec.json.encode(budget)) < 1_000_000


async def test_whoever_asks_is_told_what_is_left(tmp_path: Path) -> None:
    async with processes(tmp_path) as (one,):
        told: list[Allowance] = []
        await one.ask(ann(tokens=EACH + 10), told=told.append)
        assert told[-1][:2] == (EACH + 10, 10)
        with pytest.raises(Limited):
            await one.ask(ann(tokens=EACH + 10), told=told.append)
        assert told[-1].left == 10


async def test_jobs_of_one_owner_are_limited_in_the_queue_and_leave_nothing_behind(tmp_path: Path) -> None:
    async with broker(tmp_path, LIMITS) as (_, bus):
        one = Process(bus)
        records = JobRecords(bus)
        publisher = EventPublisher(bus, History(bus))
        queue = QueueWriter(bus, publisher, records, most=3)
        one.submitter = JobSubmitter(bus, History(bus), queue, one.budgets, NoOpTracer())
        who = Principal("user:ann", subject="ann", jobs=JobRights())
        got, refused = await outcomes([one.ask(who) for _ in range(10)])
        assert len(got) == 3
        assert {error.limit for error in refused if isinstance(error, Limited)} == {"jobs_queued"}
        assert one.submitter.refused["jobs_queued"] == 7
        assert (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 3
        await one.ask(Principal("user:ben", subject="ben", jobs=JobRights()))
        delivery = await (await JobQueue.open(bus)).take(5)
        assert delivery is not None
        await delivery.done()
        await one.ask(who)
        with pytest.raises(NotFound):
            await records.get(new_job_id())
