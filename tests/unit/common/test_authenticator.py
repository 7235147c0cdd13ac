"""Who a request is from, whatever it brings."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.support.identity import SECRET, token
from tests.support.signing import claims, signed
from tidegate_common.auth.authenticator import Authenticator
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.contract.principal import OPEN
from tidegate_common.errors import Forbidden, InvalidCredentials, Limited, Unauthenticated

KEY = f"tgk_shop_{'s' * 43}"
HERE = "192.0.2.1"
COOKIE = "__Host-tidegate"


def authenticator(**settings: Any) -> Authenticator:
    return Authenticator(AuthSettings(**{"auth": "token", "auth_secret": (SECRET,), **settings}))


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"app.example"), (b"authorization", b"Bearer " + text.encode())]


def cookie(text: str, **others: str) -> list[tuple[bytes, bytes]]:
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in others.items()]
    return [(b"host", b"app.example"), (b"cookie", f"{COOKIE}={text}".encode()), *told]


def forged(number: int) -> str:
    return signed(claims(jti=str(number)), key="another secret of the tests, 32 bytes or more")


async def test_in_the_mode_open_nothing_is_read() -> None:
    for mode in ("", "open"):
        opened = Authenticator(AuthSettings(auth=mode, auth_cookie=COOKIE))
        twice = [*bearer("x"), *bearer("y")]
        assert await opened.principal(twice, HERE) is OPEN
        assert set(opened.results.values()) == {0}


async def test_a_key_is_asked_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"key": [{"id": "shop", "sha256": sha256(KEY.encode()).hexdigest()}]}))
    asked = authenticator(auth_secret=(), api_keys_file=str(path))
    assert (await asked.principal(bearer(KEY), HERE)).name == "key:shop"
    for bad, why in ((f"{KEY[:-1]}x", "unknown"), (token("ann"), "algorithm")):
        with pytest.raises(Unauthenticated) as refused:
            await asked.principal(bearer(bad), HERE)
        assert refused.value.reason == why


async def test_without_a_file_no_key_is_good() -> None:
    with pytest.raises(Unauthenticated) as refused:
        await authenticator().principal(bearer(KEY), HERE)
    assert refused.value.reason == "unknown"


async def test_a_key_in_a_cookie_is_no_token() -> None:
    with pytest.raises(Unauthenticated):
        await authenticator(auth_cookie=COOKIE).principal(cookie(KEY, sec_fetch_site="same-origin"), HERE)


async def test_whoever_brings_nothing_may_only_listen_to_what_is_granted_to_all() -> None:
    with pytest.raises(Unauthenticated) as refused:
        await authenticator().principal([], HERE)
    assert refused.value.reason == "missing"
    found = await authenticator(auth_anonymous=("broadcast", "topic:public.>")).principal([], HERE)
    assert found.anonymous
    assert found.may_hear("broadcast")
    assert found.may_hear("topic.public.a")
    assert not found.may_hear("topic.private")
    assert not found.publish.allows("broadcast")
    assert found.jobs is None
    assert not found.admin


async def test_a_bad_token_is_not_nobody() -> None:
    with pytest.raises(Unauthenticated) as refused:
        await authenticator(auth_anonymous=("broadcast",)).principal(bearer(forged(0)), HERE)
    assert refused.value.reason == "signature"


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"origin": "https://app.example"}, True),
        ({"origin": "http://app.example"}, True),
        ({"origin": "https://other.example"}, True),
        ({"origin": "https://other.example", "sec_fetch_site": "cross-site"}, True),
        ({}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "https://evil.app.example", "sec_fetch_site": "same-site"}, False),
        ({"origin": "https://app.example", "sec_fetch_site": "cross-site"}, False),
    ],
)
async def test_a_cookie_counts_for_pages_of_our_own(said: dict[str, str], good: bool) -> None:
    asked = authenticator(auth_cookie=COOKIE, cors_origins=("https://other.example", "*", "null"))
    if good:
        assert (await asked.principal(cookie(token("ann"), **said), HERE)).subject == "ann"
    else:
        with pytest.raises(Forbidden) as refused:
            await asked.principal(cookie(token("ann"), **said), HERE)
        assert refused.value.needed == "origin"


async def test_authorization_counts_before_the_cookie_even_if_it_is_bad() -> None:
    asked = authenticator(auth_cookie=COOKIE)
    good = cookie(token("ann"), sec_fetch_site="same-origin")
    assert (await asked.principal([*good, *bearer(token("bob"))[1:]], HERE)).subject == "bob"
    with pytest.raises(Unauthenticated):
        await asked.principal([*good, *bearer(forged(0))[1:]], HERE)
    # With a token of its own a page of any site may ask: its cookie is not looked at.
    crossing = cookie(token("ann"), origin="https://evil.example")
    assert (await asked.principal([*crossing, *bearer(token("bob"))[1:]], HERE)).subject == "bob"


async def test_failures_of_an_address_are_limited_and_good_tokens_are_not() -> None:
    asked = authenticator(limit_auth_failures="0.001/5")
    for number in range(5):
        with pytest.raises(Unauthenticated):
            await asked.principal(bearer(forged(number)), HERE)
    for number in range(3):
        with pytest.raises(Limited) as refused:
            await asked.principal(bearer(forged(number)), HERE)
        assert refused.value.limit == "auth_failures"
    assert (await asked.principal(bearer(token("ann")), HERE)).subject == "ann"
    assert (await asked.principal(bearer(token("bob")), HERE)).subject == "bob"
    with pytest.raises(Unauthenticated):
        await asked.principal(bearer(forged(1)), "192.0.2.2")


async def test_a_customers_ipv6_addresses_are_one() -> None:
    asked = authenticator(limit_auth_failures="0.001/1")
    with pytest.raises(Unauthenticated):
        await asked.principal(bearer(forged(0)), "2001:db8::1")
    with pytest.raises(Limited):
        await asked.principal(bearer(forged(1)), "2001:db8::ffff:2")
    with pytest.raises(Unauthenticated):
        await asked.principal(bearer(forged(1)), "2001:db8:0:1::1")


async def test_what_nobody_tries_in_order_to_get_in_takes_nothing() -> None:
    """A thousand clients behind one address may all have slept past their tokens' end."""
    asked = authenticator(limit_auth_failures="0.001/1")
    for number in range(10):
        with pytest.raises(Unauthenticated) as refused:
            await asked.principal(bearer(token(f"ann{number}", seconds=-60)), HERE)
        assert refused.value.reason == "expired"
        with pytest.raises(Unauthenticated):
            await asked.principal([], HERE)


async def test_failures_are_said_once_for_each_reason_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = authenticator()
    bad = [forged(number) for number in range(20)]
    for each in bad:
        with pytest.raises(Unauthenticated):
            await asked.principal(bearer(each), HERE)
        with pytest.raises(InvalidCredentials):
            await asked.principal([*bearer(each), *bearer(each)], HERE)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert {line.partition(")")[0] for line in said} == {
        "a request was refused (signature",
        "a request was refused (malformed",
    }
    assert all(vars(record)["address"] == HERE for record in caplog.records)
    for each in bad:
        assert each not in caplog.text
        assert each.rpartition(".")[2] not in caplog.text
    assert (asked.results["signature"], asked.results["malformed"]) == (20, 20)


async def test_what_was_taken_back_is_refused() -> None:
    class Taken:
        def check(self, principal: Any) -> None:
            if principal.subject == "bob":
                raise Unauthenticated("revoked")

    asked = Authenticator(AuthSettings(auth="token", auth_secret=(SECRET,)), revocations=Taken())
    assert (await asked.principal(bearer(token("ann")), HERE)).subject == "ann"
    with pytest.raises(Unauthenticated):
        await asked.principal(bearer(token("bob")), HERE)
    assert (asked.results["ok"], asked.results["revoked"]) == (1, 1)
