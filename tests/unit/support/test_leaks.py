"""A secret is found in each form that it may come in."""

import base64
import secrets
from urllib.parse import quote

import pytest

from tests.support.identity import token
from tests.support.leaks import Secrets

FOUND = {
    "token": token("ann", subscribe=["broadcast"]),
    "key": f"tgk_shop_{secrets.token_urlsafe(32)}",
    "ticket": f"tgt_{secrets.token_urlsafe(32)}",
    "words": "a secret / of words? and signs, longer",
}


def names(text: bytes) -> list[str]:
    return [name for name, _ in Secrets(FOUND).found_in(text)]


@pytest.mark.parametrize("name", FOUND)
def test_raw_percent_encoded_and_within_base64(name: str) -> None:
    secret = FOUND[name]
    assert names(f"x{secret}y".encode()) == [name]
    assert names(quote(secret, safe="").encode()) == [name]
    for before in ("", "u:", "an"):
        assert names(base64.b64encode(f"{before}{secret}:z".encode())) == [name]
        assert names(base64.urlsafe_b64encode(f"{before}{secret}:z".encode())) == [name]


def test_parts_of_a_token() -> None:
    head, claims, signature = FOUND["token"].split(".")
    assert names(claims.encode()) == names(signature.encode()) == names(claims[:30].encode()) == ["token"]
    assert names(head.encode()) == []


def test_what_many_share_is_none() -> None:
    assert names(b"tgk_shop_ tgt_ Bearer ann a secret") == []
