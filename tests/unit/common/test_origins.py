"""Whose page a request is of, by what its browser says."""

import pytest

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
