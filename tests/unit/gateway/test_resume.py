from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.feed.resume import Gap, Plan, merge, plan
from tidegate_common.bus.events.history import Position, Stored

HERE = Position("abc", 10, 20)


def test_a_new_client_starts_where_the_stream_is() -> None:
    assert plan(None, HERE) == Plan(20, False, None)


@pytest.mark.parametrize("sequence", [9, 10, 15, 20])
def test_a_client_that_comes_back_is_due_what_follows_its_id(sequence: int) -> None:
    assert plan(f"abc-{sequence}", HERE) == Plan(sequence, True, None)


@pytest.mark.parametrize("last_event_id", ["xyz-15", "abc-21", "xyz-0", "abc-99999999999999999999"])
def test_an_id_of_another_life_or_past_the_end_gets_a_gap_and_all_that_is_kept(last_event_id: str) -> None:
    assert plan(last_event_id, HERE) == Plan(9, False, Gap("epoch", last_event_id, "abc-9"))
    assert plan(last_event_id, Position("abc", 0, 0)) == Plan(0, False, Gap("epoch", last_event_id, "abc-0"))


@pytest.mark.parametrize("last_event_id", ["garbage", "", "15", "abc--1", "ABC-15"])
def test_an_id_that_no_stream_has_given_gets_a_gap_and_the_live_events(last_event_id: str) -> None:
    assert plan(last_event_id, HERE) == Plan(20, False, Gap("epoch", last_event_id, "abc-20"))


def test_in_a_cluster_an_id_past_the_end_waits_for_a_better_word() -> None:
    assert plan("abc-21", HERE._replace(copies=True)) == Plan(21, True, None)
    assert plan("xyz-21", HERE._replace(copies=True)) == Plan(9, False, Gap("epoch", "xyz-21", "abc-9"))


def test_an_id_older_than_what_is_kept_gets_a_gap_and_all_that_is_kept() -> None:
    assert plan("abc-8", HERE) == Plan(9, True, Gap("expired", "abc-8", "abc-9"))


def test_an_empty_stream_has_nothing_to_miss() -> None:
    assert plan("abc-0", Position("abc", 0, 0)) == Plan(0, True, None)


async def _source(sequences: list[int]) -> AsyncIterator[Stored]:
    for sequence in sequences:
        yield Stored(sequence, "t", b"", b"")


@given(st.lists(st.lists(st.integers(1, 60), unique=True).map(sorted), max_size=5))
async def test_merging_gives_every_event_once_in_order(sources: list[list[int]]) -> None:
    merged = [stored.sequence async for stored in merge([_source(source) for source in sources])]
    assert merged == sorted({sequence for source in sources for sequence in source})


def test_a_stream_that_has_a_start_is_given_from_there_to_whoever_brings_no_place_of_its_own() -> None:
    assert plan(None, HERE, "abc-12") == Plan(12, True, None)
    assert plan("abc-15", HERE, "abc-12") == Plan(15, True, None)
    assert plan("xyz-15", HERE, "abc-12") == Plan(12, False, Gap("epoch", "xyz-15", "abc-12"))
    assert plan("garbage", HERE, "xyz-3") == Plan(9, False, Gap("epoch", "garbage", "abc-9"))
