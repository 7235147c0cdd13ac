"""Many filters held against each other say what pairs say, and cost what their tokens are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.counting import calls
from tidegate_common.contract.filters import Filters
from tidegate_common.contract.principal import FEW, Grants
from tidegate_common.contract.subjects import covers, minimal, overlap


def of_pairs(tails: list[str]) -> list[str]:
    """`minimal` by holding each against each."""
    kept: list[str] = []
    for tail in dict.fromkeys(tails):
        if not any(covers(other, tail) for other in kept):
            kept = [other for other in kept if not covers(tail, other)] + [tail]
    return kept


def _cut(found: list[str]) -> str:
    return ".".join(found[: found.index(">") + 1] if ">" in found else found)


filters = st.lists(st.sampled_from(["a", "b", "c", "*", ">"]), min_size=1, max_size=6).map(_cut)


@given(st.lists(filters, max_size=12))
def test_what_others_cover_is_what_pairs_say(tails: list[str]) -> None:
    assert minimal(tails) == of_pairs(tails)


@given(st.lists(filters, max_size=12), filters)
def test_whether_one_covers_another_is_what_pairs_say(tails: list[str], wish: str) -> None:
    assert Filters(tails).covers(wish) == any(covers(tail, wish) for tail in tails)


@given(st.lists(filters, min_size=1, max_size=20), filters)
def test_a_wish_is_allowed_if_one_grant_covers_it(topics: list[str], wish: str) -> None:
    """However many grants there are: a few are held against it one by one."""
    allowed = any(covers(topic, wish) for topic in topics)
    for many in (topics, topics * FEW):
        assert Grants.of([f"topic:{topic}" for topic in many], "subscribe").allows(f"topic.{wish}") == allowed


@given(st.lists(filters, min_size=1, max_size=4), filters, st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
def test_nothing_comes_by_a_wish_that_no_grant_lets_in(topics: list[str], wish: str, subject: list[str]) -> None:
    heard = covers(f"topic.{wish}", f"topic.{'.'.join(subject)}")
    grants = Grants.of([f"topic:{topic}" for topic in topics], "subscribe")
    if heard and grants.allows(f"topic.{wish}"):
        assert grants.allows(f"topic.{'.'.join(subject)}")


@given(st.lists(filters, max_size=12, unique=True))
def test_whether_some_overlap_is_what_pairs_say(tails: list[str]) -> None:
    pairs = [(one, other) for number, one in enumerate(tails) for other in tails[:number]]
    assert Filters(tails).overlap() == any(overlap(one, other) for one, other in pairs)


@pytest.mark.parametrize("shape", ["apart", "alike", "of stars"])
def test_twice_as_many_topics_are_twice_the_work(shape: str) -> None:
    """A hundred topics of sixteen tokens were ten thousand comparisons: 28 ms in which no event was delivered."""

    def topic(number: int) -> str:
        bits = f"{number:016b}"
        return "topic." + ".".join(
            {
                "apart": [f"{number}-{place}" for place in range(16)],
                "alike": [*"abcdefghijklmno", str(number)],
                "of stars": ["*" if bit == "1" else "a" for bit in bits],
            }[shape]
        )

    def of(many: int) -> int:
        tails = [topic(number) for number in range(many)]
        return calls(lambda: (minimal(tails), Filters(tails).overlap()))

    assert of(200) < 2.2 * of(100)
    assert of(100) < 100 * 17 * 12  # a topic's tokens, at a dozen calls each
