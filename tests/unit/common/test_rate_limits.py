from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.auth.limits import Rate, RateLimit
from tidegate_common.auth.principal_limits import PrincipalLimits
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.contract.principal import OPEN, Principal
from tidegate_common.errors import Limited


class Clock:
    """Time as the test has it. Binary fractions, so that the model's sums are exact."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bucket:
    """The model: a bucket as it is told in books, in exact numbers."""

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self.rate, self.burst, self.left, self.then = rate, burst, Fraction(burst), now

    def take(self, now: float) -> bool:
        self.left = min(Fraction(self.burst), self.left + Fraction(now - self.then) * self.rate)
        self.then = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def taken(limit: RateLimit, key: str, own: Rate | None = None) -> bool:
    try:
        limit.take(key, own)
    except Limited:
        return False
    return True


# Rates that binary fractions hold: what is tested is the rule, and not the rounding.
RATES = st.sampled_from([1, 2, 4, 8, 64])
STEPS = st.lists(st.tuples(st.integers(0, 512).map(lambda n: n / 64), st.sampled_from("abc")), max_size=200)


@given(RATES, st.integers(1, 20), STEPS)
def test_a_limit_does_what_a_bucket_for_each_key_does(rate: int, burst: int, steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    limit = RateLimit("connects", Rate(rate, burst), clock)
    buckets = {key: Bucket(rate, burst, clock.now) for key in "abc"}
    refused = 0
    for wait, key in steps:
        clock.now += wait
        expected = buckets[key].take(clock.now)
        assert taken(limit, key) is expected
        refused += not expected
    assert limit.refused == refused


@given(RATES, st.integers(1, 20), STEPS)
def test_whoever_waits_as_long_as_told_gets_one(rate: int, burst: int, steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    limit = RateLimit("connects", Rate(rate, burst), clock)
    for wait, key in steps:
        clock.now += wait
        try:
            limit.take(key)
        except Limited as error:
            clock.now += error.retry_after
            limit.take(key)


@given(RATES, st.integers(1, 20), STEPS)
def test_a_look_says_what_taking_would_and_takes_nothing(rate: int, burst: int, steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    limit = RateLimit("auth_failures", Rate(rate, burst), clock)
    for wait, key in steps:
        clock.now += wait
        looks = {limit.allowance(key) for _ in range(burst + 1)}
        (told,) = looks
        assert told is not None
        assert taken(limit, key) is (told.left > 1 - 1e-4)


def test_a_flood_of_others_does_not_give_anybody_a_full_bucket_again() -> None:
    """What was forgotten once was what had been used least lately: the bucket of whoever waited for it to be so."""
    clock = Clock()
    limit = RateLimit("connects", Rate(1, 100), clock, most=100)
    while taken(limit, "mallory"):
        pass
    for number in range(10_000):
        limit.take(f"another {number}")
    assert not taken(limit, "mallory")
    clock.now += 100
    assert taken(limit, "mallory")


def test_a_flood_that_is_over_is_forgotten() -> None:
    clock = Clock()
    limit = RateLimit("connects", Rate(1, 100), clock, most=100)
    for number in range(100):
        limit.take(f"another {number}")
    clock.now += 1
    limit.take("ann")
    assert list(limit._full_at) == ["ann"]


def test_a_keys_own_rate_counts_in_place_of_the_common_one() -> None:
    limit = RateLimit("publishes", Rate(1, 1), Clock())
    assert [taken(limit, "key:shop", Rate(1, 3)) for _ in range(4)] == [True, True, True, False]
    assert [taken(limit, "user:ann") for _ in range(2)] == [True, False]


@pytest.mark.parametrize("text", ["10", "0/5", "5/0", "-1/5", "inf/5", "5/inf", "nan/1", "1e-320/1", "a/b", "1/2/3"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rate/burst"):
        Rate.of(text)


def limits(connects: str = "") -> PrincipalLimits:
    return PrincipalLimits(AuthSettings(limit_connects=connects), RateLimit("auth_failures", None))


ANN, SHOP = Principal("user:ann", subject="ann"), Principal("key:shop", key="shop", limits={"connects": "1/2"})


def connects(found: PrincipalLimits, principal: Principal, address: str) -> bool:
    try:
        found.connect(principal, address)
    except Limited:
        return False
    return True


def test_a_subject_has_one_bucket_wherever_it_comes_from_and_an_address_is_for_those_who_have_none() -> None:
    found = limits("0.001/1")
    assert connects(found, ANN, "192.0.2.1")
    assert not connects(found, ANN, "192.0.2.2")
    assert connects(found, OPEN, "192.0.2.1")
    assert not connects(found, OPEN, "192.0.2.1")
    assert connects(found, OPEN, "2001:db8::1")
    assert not connects(found, OPEN, "2001:db8::ffff"), "one /64 is one customer's"
    assert connects(found, OPEN, "2001:db8:0:1::1")
    assert found.refused() == {"connects": 3, "publishes": 0, "jobs": 0, "auth_failures": 0}


def test_a_key_may_have_a_limit_where_nobody_else_has_one() -> None:
    found = limits()
    assert [connects(found, SHOP, "192.0.2.1") for _ in range(3)] == [True, True, False]
    assert all(connects(found, ANN, "192.0.2.1") for _ in range(1000))
    with suppress(Limited):
        for _ in range(1000):
            found.publish(SHOP, "192.0.2.1")
    assert found.refused()["publishes"] == 0
