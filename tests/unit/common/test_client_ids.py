"""Ids that are made for somebody: only they may come back with one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.auth.client_ids import ClientIds
from tidegate_common.contract.ids import check_name
from tidegate_common.contract.principal import OPEN, Principal
from tidegate_common.errors import BrokerUnavailable

IDS = ClientIds(b"k" * 32)
ANN = Principal("user:ann", subject="ann")
BOB = Principal("user:bob", subject="bob")
SHOP = Principal("key:shop", key="shop")
ANONYMOUS = Principal("anonymous")


def test_an_id_is_its_owners_alone() -> None:
    made = IDS.make(ANN)
    assert check_name("client_id", made) == made
    assert IDS.owns(ANN, made)
    for other in (BOB, SHOP, ANONYMOUS, Principal("key:ann", key="ann")):
        assert not IDS.owns(other, made)
        assert not IDS.made_for(other, made)
    assert not ClientIds(b"l" * 32).owns(ANN, made)
    assert IDS.make(ANN) != made


def test_a_token_names_an_id_of_its_own() -> None:
    laptop = Principal("user:ann", subject="ann", client="ann-laptop")
    assert IDS.owns(laptop, "ann-laptop")
    assert not IDS.owns(ANN, "ann-laptop")
    assert not IDS.owns(laptop, "ann-phone")
    assert not IDS.owns(laptop, "")


def test_who_brings_nothing_owns_no_client() -> None:
    """All of them are one: a job that is addressed to one of their clients would be everybody's."""
    made = IDS.make(ANONYMOUS)
    assert IDS.made_for(ANONYMOUS, made)
    assert not IDS.owns(ANONYMOUS, made)


def test_an_id_is_made_and_known_by_the_secret_alone() -> None:
    without = ClientIds()
    with pytest.raises(BrokerUnavailable):
        without.make(ANN)
    assert not without.owns(ANN, IDS.make(ANN))
    assert not without.owns(ANN, "a" * 22 + "." + "b" * 22)
    assert len(without.make(OPEN)) == 22
    assert without.owns(OPEN, "any")


@given(st.text(max_size=60), st.integers(0, 44), st.characters())
def test_what_is_not_quite_an_id_is_none(text: str, place: int, character: str) -> None:
    made = IDS.make(ANN)
    changed = made[:place] + character + made[place + 1 :]
    assert IDS.owns(ANN, changed) == (changed == made)
    assert not IDS.owns(ANN, text)
    assert not IDS.owns(ANN, made + text) or not text


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=20))
def test_no_two_owners_share_an_id(sub: str) -> None:
    other = Principal(f"user:{sub}", subject=sub)
    made = IDS.make(other)
    assert IDS.owns(other, made)
    assert IDS.owns(ANN, made) == (sub == "ann")
