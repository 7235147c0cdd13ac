import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.contract.subjects import (
    Subjects,
    client_tail,
    covers,
    decode_token,
    encode_token,
    minimal,
    overlap,
    topic_filter_tail,
    topic_tail,
    user_tail,
)
from tidegate_common.errors import InvalidField

LEGAL_TOKEN = re.compile(r"[A-Za-z0-9_%-]+")
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=50)
tokens = st.sampled_from(["a", "b", "*", ">"])


def filters() -> st.SearchStrategy[str]:
    """Filters in which > is last."""
    return st.lists(tokens, min_size=1, max_size=4).map(lambda found: ".".join(_cut(found)))


def _cut(found: list[str]) -> list[str]:
    return found[: found.index(">") + 1] if ">" in found else found


def matches(pattern: str, subject: str) -> bool:
    """NATS's own rule, as an independent regular expression."""
    expression = re.escape(pattern).replace(r"\*", r"[^.]+").replace(">", r".+")
    return re.fullmatch(expression, subject) is not None


@given(names)
def test_every_name_becomes_one_legal_token_and_comes_back(name: str) -> None:
    token = encode_token(name)
    assert LEGAL_TOKEN.fullmatch(token)
    assert decode_token(token) == name


def test_an_address_with_dots_stays_one_token() -> None:
    assert user_tail("ann.b@example.org") == "user.ann%2Eb%40example%2Eorg"
    assert client_tail("*") == "client.%2A"


def test_a_topic_keeps_its_dots_and_encodes_its_tokens() -> None:
    assert topic_tail("prices.eur/usd") == "topic.prices.eur%2Fusd"
    assert topic_filter_tail("prices.*.>") == "topic.prices.*.>"
    assert topic_filter_tail("a*b") == "topic.a%2Ab"


@pytest.mark.parametrize("topic", ["", ".", "a..b", "a.", "a.*", ">", "a\nb", ".".join("a" * 17)])
def test_a_topic_to_publish_to_has_tokens_and_no_wildcard(topic: str) -> None:
    with pytest.raises(InvalidField) as caught:
        topic_tail(topic)
    assert caught.value.field == "topic"


@pytest.mark.parametrize("topic", [">.a", "a.>.b", "", "a..>"])
def test_a_filter_has_its_rest_wildcard_last(topic: str) -> None:
    with pytest.raises(InvalidField):
        topic_filter_tail(topic)


@given(filters(), filters(), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
def test_covering_and_overlapping_agree_with_matching(one: str, other: str, subject_tokens: list[str]) -> None:
    subject = ".".join(subject_tokens)
    if covers(one, other) and matches(other, subject):
        assert matches(one, subject)
    if matches(one, subject) and matches(other, subject):
        assert overlap(one, other)


@given(st.lists(filters(), max_size=6), st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4))
def test_the_minimal_set_hears_what_the_whole_set_hears(tails: list[str], subject_tokens: list[str]) -> None:
    kept, subject = minimal(tails), ".".join(subject_tokens)
    assert any(matches(tail, subject) for tail in tails) == any(matches(tail, subject) for tail in kept)
    assert not any(covers(one, other) for one in kept for other in kept if one is not other)


def test_a_namespace_names_its_subjects_and_streams() -> None:
    subjects = Subjects.of("tg")
    assert subjects.inbound("broadcast") == "tg.in.broadcast"
    assert subjects.outbound("client.a") == "tg.out.client.a"
    assert (subjects.events_stream, subjects.jobs_stream, subjects.jobs_bucket) == (
        "TG_EVENTS",
        "TG_JOBS",
        "TG_JOBS_STATE",
    )


@pytest.mark.parametrize("namespace", ["", "a.b", "A", "a*", "x" * 33])
def test_a_namespace_that_is_no_token_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidField):
        Subjects.of(namespace)
