"""Whose page a request is of, by what its browser says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.auth.origins import Origins
from tidegate_common.errors import Forbidden

OURS = Origins(["https://app.example"])
HOST = (b"host", b"localhost:8001")


def said(**fields: str) -> list[tuple[bytes, bytes]]:
    return [HOST, *((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items())]


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, None),
        ({"sec_fetch_site": "none"}, None),
        ({"origin": "http://localhost:8001"}, True),
        ({"origin": "https://LOCALHOST:8001"}, True),
        ({"origin": "https://app.example"}, True),
        ({"origin": "https://app.example", "sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"origin": "http://proxied.example", "sec_fetch_site": "same-origin"}, True),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://localhost:8002"}, False),
        ({"origin": "http://localhost"}, False),
        ({"origin": "http://app.example"}, False),
        ({"origin": "https://app.example:444"}, False),
        ({"origin": "https://app.example.evil.example"}, False),
        ({"origin": "http://localhost:8001", "sec_fetch_site": "cross-site"}, False),
        ({"origin": "http://localhost:8001", "sec_fetch_site": "same-site"}, False),
        ({"origin": "chrome-extension://abcdef", "sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
    ],
)
def test_a_browser_says_whose_page_it_is(fields: dict[str, str], own: bool | None) -> None:
    assert OURS.own(said(**fields)) is own


HOSTS = st.sampled_from(
    ["localhost:8001", "app.example", "evil.example", "localhost", "127.0.0.1:8001", "[::1]:8001", ""]
)
SCHEMES = st.sampled_from(["http://", "https://", "HTTP://", "app://", "", "//"])
SITES = st.sampled_from(["", "same-origin", "same-site", "cross-site", "none", "SAME-ORIGIN", "odd"])


@given(host=HOSTS, named=HOSTS, scheme=SCHEMES, site=SITES, more=st.text("a.:@/ ", max_size=3))
def test_a_page_is_ours_for_one_of_three_reasons(host: str, named: str, scheme: str, site: str, more: str) -> None:
    """Its browser says so, the list has it, or (where browsers say no more than `Origin`) it is of the host asked."""
    origin = f"{scheme}{named}{more}"
    told = [(b"host", host.encode()), (b"origin", origin.encode())]
    told += [(b"sec-fetch-site", site.encode())] if site else []
    same_host = bool(host) and not site and origin.partition("://")[2].lower() == host
    assert OURS.own(told) is (site == "same-origin" or origin == "https://app.example" or same_host)


def test_two_origins_are_nobodys() -> None:
    ours = (b"origin", b"https://app.example")
    assert OURS.own([HOST, ours, (b"origin", b"https://evil.example")]) is False
    assert OURS.own([HOST, ours, ours]) is False


def test_without_a_host_only_the_list_counts() -> None:
    assert OURS.own([(b"origin", b"https://app.example")]) is True
    assert OURS.own([(b"origin", b"http://localhost:8001")]) is False
    assert OURS.own([(b"origin", b"null")]) is False


def test_a_star_stands_for_all() -> None:
    assert Origins(["*"]).own(said(origin="https://evil.example")) is True
    assert Origins(["*"]).own(said(origin="null")) is True


EVIL = {"origin": "https://evil.example"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW", "post", "get"])
def test_another_sites_page_changes_nothing(method: str) -> None:
    for fields in (EVIL, {**EVIL, "cookie": "a=b"}, {**EVIL, "authorization": "Basic YTpi"}):
        with pytest.raises(Forbidden) as refused:
            OURS.check(method, said(**fields))
        assert refused.value.needed == "origin"
    OURS.check(method, said())
    OURS.check(method, said(origin="https://app.example"))
    OURS.check(method, said(**EVIL, authorization="bearer x"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_left_to_cors(method: str) -> None:
    OURS.check(method, said(**EVIL))
