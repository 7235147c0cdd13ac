"""In what a stream differs is told field by field, whatever is changed about it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.bus.streams.definitions import StreamLimits, configs
from tidegate_common.bus.streams.differences import KEPT, USUAL, differences
from tidegate_common.contract.subjects import Subjects

CONFIGS = configs(Subjects.of("tg"), StreamLimits())

OTHERS: dict[str, Any] = {
    "subjects": ["tg.in.client.>"],
    "retention": "interest",
    "max_consumers": 3,
    "max_msgs": 7,
    "max_bytes": 77,
    "max_age": 5_000_000_000,
    "max_msgs_per_subject": 2,
    "max_msg_size": 1000,
    "storage": "memory",
    "num_replicas": 5,
    "no_ack": True,
    "mirror": {"name": "OTHER"},
    "sources": [{"name": "OTHER"}],
    "sealed": True,
    "deny_purge": True,
    "republish": {"src": ">", "dest": "else.>"},
    "subject_transform": {"src": "a", "dest": "b"},
    "duplicate_window": 1_000_000_000,
    "allow_msg_counter": True,
    "persist_mode": "async",
}


@given(index=st.integers(0, len(CONFIGS) - 1), fields=st.sets(st.sampled_from(sorted(OTHERS))))
def test_each_field_that_is_not_as_it_should_be_is_named_and_no_other(index: int, fields: set[str]) -> None:
    wanted = CONFIGS[index]
    found = {**USUAL, **wanted, **{field: OTHERS[field] for field in fields}}
    told = differences(wanted, found)
    assert {each.field for each in told} == fields
    assert {each.field for each in told if each.of_what_is_kept} == fields & KEPT
    for each in told:
        assert str(each).startswith(f"{each.field} is ")


@given(index=st.integers(0, len(CONFIGS) - 1))
def test_what_the_server_leaves_out_or_adds_is_no_difference(index: int) -> None:
    wanted = CONFIGS[index]
    usual = {field: value for field, value in USUAL.items() if value not in (None, False)}
    found = {**usual, **wanted, "metadata": {"a": "b"}, "description": "x", "compression": "s2", "max_consumers": 0}
    assert differences(wanted, found) == []


@pytest.mark.parametrize(
    ("change", "words", "fixed"),
    [
        ({"storage": "memory"}, "storage is memory, not file", True),
        ({"republish": None}, "republish is none, not from tg.in.> to tg.out.>", False),
        ({"subjects": ["a", "b"]}, "subjects is a, b, not tg.in.>", False),
        ({"mirror": {"name": "OTHER"}}, "mirror is OTHER, not none", True),
        ({"sources": [{"name": "A"}, {"name": "B"}]}, "sources is A, B, not none", True),
        ({"max_age": 60_000_000_000}, "max_age is 60 s, not 86400 s", False),
        ({"num_replicas": 3}, "num_replicas is 3, not 1", False),
        ({"sealed": True}, "sealed is on, not off", True),
        ({"deny_delete": True}, "deny_delete is on, not off", True),
        ({"allow_direct": False}, "allow_direct is off, not on", False),
        ({"max_msgs": 10}, "max_msgs is 10, not without a limit", False),
    ],
)
def test_a_difference_reads_as_what_is_and_what_should_be(change: dict[str, Any], words: str, fixed: bool) -> None:
    (found,) = differences(CONFIGS[0], {**USUAL, **CONFIGS[0], **change})
    assert (str(found), found.fixed) == (words, fixed)
