"""Who may do what: grants against what they are meant to cover, and whose a job is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.contract.ids import keyed_id
from tidegate_common.contract.principal import ADMIN, OPEN, Grants, Principal, grant_tail
from tidegate_common.contract.subjects import BROADCAST, client_tail, topic_filter_tail, topic_tail, user_tail
from tidegate_common.errors import Forbidden, InvalidField, Unauthenticated

TOKENS = ["a", "b", "a%2Eb", "caf\u00e9", "cafe\u0301", "caf\ufffd", "A"]
NAMES = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=12)
PATTERNS = st.lists(st.sampled_from([*TOKENS, "*"]), min_size=1, max_size=3).flatmap(
    lambda tokens: st.sampled_from([".".join(tokens), ".".join([*tokens, ">"])])
)
TOPICS = [
    ".".join(tokens) for length in (1, 2, 3, 4) for tokens in itertools.product(["a", "b", "caf\u00e9"], repeat=length)
]


def matches(pattern: str, topic: str) -> bool:
    """By NATS's rules, on the names as people write them."""
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and all(a in ("*", b) for a, b in zip(wanted[:-1], given, strict=False))
    return len(given) == len(wanted) and all(a in ("*", b) for a, b in zip(wanted, given, strict=True))


@given(st.lists(PATTERNS, max_size=4), st.lists(st.sampled_from(TOKENS), min_size=1, max_size=4).map(".".join))
def test_a_topic_may_be_published_to_if_one_grant_matches_it(patterns: list[str], topic: str) -> None:
    grants = Grants.of([f"topic:{each}" for each in patterns], "publish")
    assert grants.allows(topic_tail(topic)) == any(matches(each, topic) for each in patterns)


@given(PATTERNS, PATTERNS)
def test_a_pattern_may_be_heard_if_a_grant_covers_all_that_it_matches(grant: str, wish: str) -> None:
    allowed = Grants.of([f"topic:{grant}"], "subscribe").allows(topic_filter_tail(wish))
    heard = [topic for topic in TOPICS if matches(wish, topic)]
    if allowed:
        assert all(matches(grant, topic) for topic in heard)
    elif all(matches(grant, topic) for topic in heard):
        # Only where these topics are too few to show the difference.
        assert not heard or any(token not in ("a", "b", "caf\u00e9", "*", ">") for token in wish.split("."))


@given(NAMES, NAMES, st.sampled_from(["user", "client"]))
def test_a_grant_for_one_name_is_for_no_other(granted: str, wished: str, kind: str) -> None:
    tail = {"user": user_tail, "client": client_tail}[kind]
    grants = Grants.of([f"{kind}:{granted}"], "publish")
    assert grants.allows(tail(wished)) == (granted in ("*", wished))
    assert not grants.allows(BROADCAST)
    assert not grants.allows({"user": client_tail, "client": user_tail}[kind](wished))


@pytest.mark.parametrize(
    "grant",
    ["", "topic", "topic:", "user:", "all", "jobs", "jobs:1", "broadcast:x", "topic:a..b", "topic:>.a", "user:\n"],
)
def test_what_is_no_grant_is_refused_and_named(grant: str) -> None:
    with pytest.raises(InvalidField) as raised:
        Grants.of(["broadcast", grant], "tidegate.publish")
    assert raised.value.field == "tidegate.publish[1]"


@given(st.sampled_from(["topic:>", "user:*", "client:*", "broadcast", "jobs:*"]))
def test_each_grant_is_of_its_own_kind(grant: str) -> None:
    tails = {
        "topic:>": topic_tail("a.b"),
        "user:*": user_tail("ann"),
        "client:*": client_tail("ann"),
        "broadcast": BROADCAST,
        "jobs:*": "job.0123",
    }
    grants = Grants.of([grant], "publish")
    assert [each for each, tail in tails.items() if grants.allows(tail)] == [grant]
    assert not any(Grants().allows(tail) for tail in tails.values())
    assert all(OPEN.publish.allows(tail) for tail in tails.values())


def user(name: str) -> Principal:
    return Principal(f"user:{name}", subject=name)


def key(name: str) -> Principal:
    return Principal(f"key:{name}", key=name)


PRINCIPALS = st.builds(
    lambda make, name: make(name), st.sampled_from([user, key]), NAMES | st.sampled_from(["a", "a.b", "a.b.c", "key"])
)


@given(PRINCIPALS, PRINCIPALS, NAMES | st.just(""))
def test_nobody_owns_what_another_has_asked_for(one: Principal, other: Principal, asked_for: str) -> None:
    assert one.owns(one.owner(asked_for))
    assert other.owns(one.owner(asked_for)) == (other.name == one.name)
    assert OPEN.owns(one.owner(asked_for))


@given(
    PRINCIPALS,
    PRINCIPALS,
    st.from_regex(r"[\x21-\x7e]{1,20}", fullmatch=True),
    st.from_regex(r"[\x21-\x7e]{1,20}", fullmatch=True),
)
def test_one_key_of_two_principals_names_two_things(one: Principal, other: Principal, first: str, second: str) -> None:
    ids = keyed_id("job", *one.key_words(first)), keyed_id("job", *other.key_words(second))
    assert (ids[0] == ids[1]) == ((one.name, first) == (other.name, second))
    assert keyed_id("job", *OPEN.key_words(first)) == keyed_id("job", first)
    assert keyed_id("job", first) not in ids


def test_who_lacks_a_right_is_told_which_and_who_brings_nothing_is_asked_who_they_are() -> None:
    for raised, principal in (
        (Forbidden, user("ann")),
        (Forbidden, key("shop")),
        (Unauthenticated, Principal("anonymous")),
    ):
        for check, needed in (
            (lambda p: p.check_publishes("topic.a", "topic:a"), "publish topic:a"),
            (lambda p: p.check_hears("topic.a", "topic:a"), "subscribe topic:a"),
            (lambda p: p.check_admin("kick"), "admin kick"),
            (lambda p: p.check_job("chat"), "jobs"),
        ):
            with pytest.raises(raised) as found:
                check(principal)
            assert found.value.needed == needed  # type: ignore[attr-defined]
    for name in ADMIN:
        OPEN.check_admin(name)
    assert user("ann").may_hear(user_tail("ann"))
    assert not user("ann").publish.allows(user_tail("ann"))
    assert grant_tail("user:ann") == user_tail("ann")
