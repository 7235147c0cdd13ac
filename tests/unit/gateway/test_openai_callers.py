"""Whose job a completion is, and how limits are told."""

import pytest

from gateway.openai.caller import Caller
from gateway.openai.rate_headers import duration, rate_headers
from tidegate_common.contract.principal import OPEN, JobRights, Principal

ANN = Principal("user:ann", subject="ann", jobs=JobRights())
SHOP = Principal("key:shop", key="shop", jobs=JobRights())


def test_where_nobody_is_asked_user_says_whose_it_is() -> None:
    caller = Caller(OPEN, "127.0.0.1", "key.abc")
    assert (caller.owner(""), caller.owner("b@example.org")) == ("key.abc", "user.b%40example%2Eorg")


def test_user_divides_a_services_share_and_makes_nobody_another() -> None:
    assert Caller(ANN, "", ANN.owner()).owner("ben") == "user.ann"
    shop = Caller(SHOP, "", SHOP.owner())
    assert (shop.owner(""), shop.owner("ben"), shop.owner("ann.user")) == (
        "key.shop",
        "key.shop.ben",
        "key.shop.ann%2Euser",
    )
    assert SHOP.owns(shop.owner("ben"))
    assert not ANN.owns(shop.owner("ann"))


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (86_340.5, "23h59m1s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_what_is_left_is_rounded_down() -> None:
    assert rate_headers("requests", 20, 3.9, 0.5) == {
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "500ms",
    }
