"""What a budget holds, after whatever was reserved and settled."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.contract.budget import Budget, Tokens, Used, budget_of, until_next_day
from tidegate_common.contract.jobs import JobState, JobStatus, Usage
from tidegate_common.contract.principal import OPEN, JobRights, Principal
from tidegate_common.errors import Limited

DAY = 86_400.0
NOON = 20_000 * DAY + DAY / 2
ENTRIES = st.sampled_from(["a", "b", "c", "d"])
USED = st.builds(Used, st.builds(Usage, st.integers(-20, 20), st.integers(-20, 20)), st.booleans())
RESERVED = st.tuples(st.just("reserve"), ENTRIES, st.builds(Tokens, st.integers(1, 40), st.integers(0, 40)))
STEPS = st.lists(st.one_of(RESERVED, st.tuples(st.just("settle"), ENTRIES, USED)), max_size=40)


@given(steps=STEPS, limit=st.integers(0, 200), concurrent=st.integers(0, 4))
def test_nothing_is_reserved_past_the_limits(steps: list[Any], limit: int, concurrent: int) -> None:
    budget, rights = Budget(), JobRights(max_tokens=1, tokens_per_day=limit, concurrent=concurrent)
    budget.turn(NOON)
    for step, entry, told in steps:
        before = budget.spent
        if step == "settle":
            budget.settle(entry, told)
            assert budget.spent >= before
            continue
        new = entry not in budget.open
        fits = budget.spent + budget.reserved + told.all <= limit and len(budget.open) < concurrent
        with nullcontext() if fits or not new else pytest.raises(Limited):
            budget.reserve(entry, told, rights, NOON)
        assert (entry in budget.open) == (fits or not new)
        assert len(budget.open) <= concurrent
        assert budget.reserved == sum(each.tokens for each in budget.open.values())


def test_an_entry_is_settled_once_and_reserved_once() -> None:
    budget, rights = Budget(), JobRights(max_tokens=1, tokens_per_day=100)
    for _ in range(2):
        budget.reserve("a", Tokens(10, 20), rights, NOON)
    assert budget.reserved == 30
    for _ in range(2):
        budget.settle("a", Used(Usage(5, 6)))
    assert (budget.spent, budget.reserved) == (11, 0)


@pytest.mark.parametrize(
    ("kind", "status", "attempt", "usage", "prompt"),
    [
        ("chat", JobStatus.CANCELLED, 0, Usage(), False),  # in the queue
        ("chat", JobStatus.CANCELLED, 1, Usage(), True),
        ("chat", JobStatus.FAILED, 1, Usage(), False),  # no backend has answered
        ("chat", JobStatus.FAILED, 1, Usage(0, 5), True),
        ("transform", JobStatus.DONE, 1, Usage(0, 5), True),
        ("image.progressive", JobStatus.CANCELLED, 1, Usage(), False),  # asks no model
    ],
)
def test_a_prompt_that_was_read_counts_though_nobody_has_counted_it(
    kind: str, status: JobStatus, attempt: int, usage: Usage, prompt: bool
) -> None:
    state = JobState(job_id="j", kind=kind, status=status, created=1, updated=1, attempt=attempt, usage=usage)
    assert Used.by(state) == (usage, prompt)
    budget = Budget()
    budget.reserve("a", Tokens(10, 20), JobRights(), NOON)
    budget.settle("a", Used.by(state))
    assert budget.spent == usage.completion_tokens + 10 * prompt


@given(now=st.floats(0, 4e9), later=st.floats(0, 3 * DAY))
def test_a_day_begins_at_midnight(now: float, later: float) -> None:
    budget = Budget()
    budget.turn(now)
    budget.spent = 5
    budget.turn(now + later)
    assert (budget.spent == 5) == (now // DAY == (now + later) // DAY)
    assert 0 < until_next_day(now) <= DAY


def test_one_principal_has_one_budget_if_anything_is_counted() -> None:
    def of(name: str, **rights: Any) -> str:
        return budget_of(Principal(name, subject="x", jobs=JobRights(**rights)))

    assert budget_of(OPEN) == of("user:ann") == budget_of(Principal("user:ann", subject="ann")) == ""
    assert of("user:ann", concurrent=1) == of("user:ann", tokens_per_day=5, max_tokens=1) != of("key:ann", concurrent=1)
