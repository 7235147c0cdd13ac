"""What a request says of who it is from, and which of it counts."""

from __future__ import annotations

import pytest

from tidegate_common.auth.credentials import NOTHING, Credential, Kind, credential
from tidegate_common.errors import InvalidCredentials

COOKIE = "__Host-tidegate"


def read(*headers: tuple[str, str], ticket: str | None = None, cookie: str = COOKIE) -> Credential:
    return credential([(name.encode(), value.encode("latin-1")) for name, value in headers], ticket, cookie)


def test_the_first_of_header_ticket_and_cookie_counts() -> None:
    bearer, cookie = ("authorization", "Bearer a.b.c"), ("cookie", f"{COOKIE}=d.e.f")
    assert read(cookie, bearer, ticket="t") == (Kind.TOKEN, "a.b.c")
    assert read(cookie, ticket="t") == (Kind.TICKET, "t")
    assert read(cookie, ticket="") == (Kind.TICKET, "")
    assert read(cookie) == (Kind.COOKIE, "d.e.f")
    assert read() == read(("host", "a")) == NOTHING


def test_a_key_is_told_from_a_token() -> None:
    assert read(("authorization", "bearer tgk_shop_x")) == (Kind.KEY, "tgk_shop_x")
    assert read(("authorization", "BEARER  a.b.c ")) == (Kind.TOKEN, "a.b.c")


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic YTpi", "a.b.c", "Bearer a b", "Bearer a, Bearer b", "Bearer\ta"]
)
def test_a_header_that_is_not_read_is_no_reason_to_look_further(value: str) -> None:
    with pytest.raises(InvalidCredentials):
        read(("authorization", value), ("cookie", f"{COOKIE}=d.e.f"))


def test_two_headers_are_refused() -> None:
    for second in ("Bearer a", "Bearer b", ""):
        with pytest.raises(InvalidCredentials):
            read(("authorization", "Bearer a"), ("authorization", second))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (["a=1; __Host-tidegate=x; b=2"], "x"),
        (["a=1", "__Host-tidegate=x"], "x"),
        (["__Host-tidegate=x=y"], "x=y"),
        (["__host-tidegate=x"], ""),
        (["__Host-tidegate2=x; x__Host-tidegate=y"], ""),
        (["__Host-tidegate"], ""),
        (["__Host-tidegate="], ""),
        ([";;; =; ="], ""),
        ([" __Host-tidegate = x"], ""),
    ],
)
def test_a_cookie_is_found_by_its_exact_name(headers: list[str], found: str) -> None:
    assert read(*(("cookie", each) for each in headers)).text == found


@pytest.mark.parametrize(
    "headers",
    [
        [f"{COOKIE}=x; {COOKIE}=x"],
        [f"{COOKIE}=x; a=b; {COOKIE}=y"],
        [f"{COOKIE}=x", f"{COOKIE}="],
    ],
)
def test_two_cookies_are_refused(headers: list[str]) -> None:
    """Another host of the same site may set one of its own beside ours; which of them comes first says nothing."""
    with pytest.raises(InvalidCredentials):
        read(*(("cookie", each) for each in headers))


def test_without_a_name_no_cookie_is_read() -> None:
    assert read(("cookie", "=x; a=b"), cookie="") == NOTHING
