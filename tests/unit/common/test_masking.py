"""What looks like a secret is not told back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.identity import token
from tidegate_common.contract.ids import keyed_id, new_client_id, new_job_id
from tidegate_common.contract.tickets import new_ticket
from tidegate_common.telemetry.masking import MASK, masked

KEY = "tgk_shop_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
SECRETS = [token("ann", subscribe=["broadcast"]), KEY, new_ticket()]


@pytest.mark.parametrize("form", ["{}", "client:{}", "a={}&b", "/x/{}/y", '"{}"', "no model '{}' is here", "{},{}"])
def test_a_secret_is_masked_wherever_it_stands(form: str) -> None:
    for secret in SECRETS:
        assert masked(form.format(secret, secret)) == form.format(MASK, MASK)


@given(cut=st.integers(20, 200))
def test_what_was_cut_off_is_masked_too(cut: int) -> None:
    for secret in SECRETS:
        assert masked(f"field: {secret[:cut]}") == f"field: {MASK}"


def test_nothing_else_is() -> None:
    ids = [new_client_id(), new_job_id(), keyed_id("job", "x")]
    told = ["subscribe topic:prices.*", "eyJ", "tgk", "Authorization: Bearer, then a token", "https://id.example/keys"]
    for text in (*ids, *told):
        assert masked(text) == text
