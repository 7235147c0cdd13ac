"""Which tokens are good, and as whom."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey, RSAKey

from tests.support.identity import SECRET
from tests.support.signing import claims as claims_of_now
from tests.support.signing import encoded, jwks, new_key, signed
from tidegate_common.auth.keyset import RS256, VerifyingKey, read_jwks
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.auth.tokens import MOST_REFUSED, Tokens
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import Unauthenticated

OTHER = "another secret of the tests, 32 bytes or more"
NOW = 1_800_000_000


def claims(**others: Any) -> dict[str, Any]:
    return claims_of_now(**{"iat": NOW, "exp": NOW + 600, **others})


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock | None = None, **settings: Any) -> Tokens:
    made = AuthSettings(**{"auth": "token", "auth_secret": (SECRET,), **settings})
    return Tokens(made, made.signing_keys(), clock or Clock())


def reason(token: str, reader: Tokens | None = None) -> str:
    """Why `token` is refused; it is refused for the same reason when it comes again."""
    reader = reader or tokens()
    with pytest.raises(Unauthenticated) as first:
        reader.principal(token)
    with pytest.raises(Unauthenticated) as second:
        reader.principal(token)
    assert (first.value.reason, str(first.value)) == (second.value.reason, str(second.value))
    return first.value.reason


def test_a_good_token_says_who_and_what() -> None:
    own = {
        "subscribe": ["topic:prices.*", "broadcast"],
        "publish": ["user:bob"],
        "jobs": {"kinds": ["chat"], "max_tokens": 5, "tokens_per_day": 10},
        "client": "laptop",
        "admin": ["kick"],
    }
    found = tokens().principal(signed(claims(jti="7", tidegate=own, email="ann@example.com")))
    assert (found.name, found.subject, found.client, found.token_id) == ("user:ann", "ann", "laptop", "7")
    assert found.may_hear("topic.prices.a")
    assert found.jobs is not None
    assert found.jobs.kinds == ("chat",)
    assert found.admin == {"kick"}
    assert found.expires == NOW + 610


def test_any_secret_is_good_while_one_takes_the_place_of_another() -> None:
    reader = tokens(auth_secret=(OTHER, SECRET))
    for secret in (OTHER, SECRET):
        assert reader.principal(signed(claims(), key=secret)).subject == "ann"
    assert reason(signed(claims(), key=OTHER)) == "signature"


def test_a_kid_that_nobody_configured_is_no_matter_to_a_secret() -> None:
    assert tokens().principal(signed(claims(), {"alg": "HS256", "kid": "2026"})).subject == "ann"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_public_keys_come_from_a_file(algorithm: str, tmp_path: Path) -> None:
    key, other = new_key(algorithm), new_key(algorithm)
    path = tmp_path / "keys.pem"
    path.write_bytes(other.as_pem(private=False) + b"\n" + key.as_pem(private=False))  # type: ignore[union-attr]
    reader = tokens(auth_secret=(), auth_keys=str(path))
    assert reader.principal(signed(claims(), {"alg": algorithm}, key)).subject == "ann"
    assert reason(signed(claims(), {"alg": algorithm}, new_key(algorithm)), reader) == "signature"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", "HS512", "RS256", "hs256", "dir"])
def test_the_key_decides_on_the_algorithm(name: str) -> None:
    for by in ("none", "HS256", "HS512"):
        assert reason(signed(claims(), {"alg": name}, by=by)) in ("algorithm", "kid")


@pytest.mark.parametrize("private", [new_key("RS256"), new_key("ES256"), new_key("EdDSA")])
def test_a_public_key_is_no_secret(private: Any, tmp_path: Path) -> None:
    """Whoever has the public key, which is everybody, once signed HS256 with it in many a library."""
    pem = private.as_pem(private=False)
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    reader = tokens(auth_secret=(), auth_keys=str(path))
    for raw in (pem, pem.strip(), private.as_der(private=False), json.dumps(private.as_dict(private=False)).encode()):
        forged = signed(claims(), {"alg": "HS256"}, OctKey(raw, raw))
        assert reason(forged, reader) == "algorithm"


def test_keys_of_the_token_itself_are_not_read() -> None:
    own = new_key("RS256")
    jwk = own.as_dict(private=False)
    for header in (
        {"jwk": jwk},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/c"},
        {"x5c": [""]},
    ):
        assert reason(signed(claims(), {"alg": "RS256", **header}, own)) == "kid"
        assert tokens().principal(signed(claims(), {"alg": "HS256", **header})).subject == "ann"


@pytest.mark.parametrize(
    "header",
    [{"crit": ["b64"], "b64": False}, {"crit": []}, {"crit": ["exp"], "exp": 1}, {"b64": False}, {"b64": True}],
)
def test_what_is_critical_is_not_understood(header: dict[str, Any]) -> None:
    assert reason(signed(claims(), {"alg": "HS256", **header})) == "malformed"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"exp": None}, "malformed"),
        ({"iat": None}, "malformed"),
        ({"sub": None}, "malformed"),
        ({"exp": "9999999999"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": -1}, "malformed"),
        ({"exp": 10**400}, "malformed"),
        ({"exp": math.nan}, "malformed"),
        ({"exp": math.inf}, "malformed"),
        ({"exp": [NOW]}, "malformed"),
        ({"iat": -5}, "malformed"),
        ({"nbf": "now"}, "malformed"),
        ({"exp": NOW + 86_401}, "malformed"),
        ({"exp": 1e300}, "malformed"),
        ({"exp": NOW - 10, "iat": NOW - 60}, "expired"),
        ({"iat": NOW + 11}, "early"),
        ({"nbf": NOW + 11}, "early"),
        ({"aud": None}, "audience"),
        ({"aud": "other"}, "audience"),
        ({"aud": "my-tidegate"}, "audience"),
        ({"aud": ["my-tidegate", "Tidegate", "tidegate "]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["a", "b"]}, "audience"),
        ({"aud": {"tidegate": 1}}, "malformed"),
        ({"aud": [["tidegate"]]}, "malformed"),
        ({"sub": ""}, "malformed"),
        ({"sub": "a\nb"}, "malformed"),
        ({"sub": "x" * 201}, "malformed"),
        ({"sub": "\ud800"}, "malformed"),
        ({"sub": 7}, "malformed"),
        ({"jti": 7}, "malformed"),
        ({"tidegate": []}, "malformed"),
        ({"tidegate": {"suscribe": []}}, "malformed"),
        ({"tidegate": {"subscribe": ["prices"]}}, "malformed"),
        ({"tidegate": {"subscribe": "broadcast"}}, "malformed"),
        ({"tidegate": {"admin": ["root"]}}, "malformed"),
        ({"tidegate": {"jobs": {"model": ["small"]}}}, "malformed"),
        ({"tidegate": {"jobs": {"tokens_per_day": 5}}}, "malformed"),
        ({"tidegate": {"jobs": {"max_tokens": 0}}}, "malformed"),
        ({"tidegate": {"client": "\ud800"}}, "malformed"),
    ],
)
def test_claims_are_checked(changed: dict[str, Any], why: str) -> None:
    assert reason(signed(claims(**changed))) == why


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["other", "tidegate"]},
        {"iat": NOW + 9},
        {"nbf": NOW + 9},
        {"exp": NOW - 9, "iat": NOW - 60},
        {"sub": "é"},
    ],
)
def test_leeway_and_lists_are_good(changed: dict[str, Any]) -> None:
    tokens().principal(signed(claims(**changed)))


def test_the_issuer_counts_if_one_is_set() -> None:
    reader = tokens(auth_issuer="https://id.example")
    assert reader.principal(signed(claims(iss="https://id.example"))).subject == "ann"
    for other in ("https://id.example/", "", None, "https://ID.example"):
        assert reason(signed(claims(iss=other)), reader) == "issuer"
    assert tokens().principal(signed(claims(iss="https://any.example"))).subject == "ann"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'{"sub": "\xff"}',
        b'{"sub": "\\ud800", "exp": 1, "iat": 1}',
        b'{"exp": 1e400, "iat": 1, "sub": "a"}',
        b'{"exp": NaN, "iat": 1, "sub": "a"}',
        b'{"exp": ' + b"9" * 5000 + b', "iat": 1, "sub": "a"}',
        b'{"a": ' + b"[" * 5000 + b"]" * 500,
        json.dumps(claims()).encode() + b"x",
        b"\xef\xbb\xbf" + json.dumps(claims()).encode(),
    ],
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    assert reason(signed(body)) == "malformed"


@pytest.mark.parametrize(
    "header",
    [b"", b"null", b'"alg"', b"[]", b'["alg"]', b"7", b'{"alg": ["HS256"]}', b'{"alg": 1}', b"{}", b"[" * 5000],
)
def test_headers_that_are_none_are_malformed(header: bytes) -> None:
    assert reason(signed(claims(), header)) == "malformed"


def test_what_has_not_three_parts_is_malformed() -> None:
    good = signed(claims())
    head, body, signature = good.split(".")
    for odd in (
        "", ".", "..", "...", "a.b", "é.é.é", head, f"{head}.{body}", f"{good}.", f".{good}", f"{good}.{signature}.a",
        f"{head}=.{body}.{signature}", f"{head}.{body}.{signature}=", f"{head}.{body} .{signature}", f"{head}.{body}.!",
        f"{head}.{body}.+/+/",
    ):  # fmt: skip
        assert reason(odd) == "malformed", odd
    assert reason(f"{head}.{body}.") == "signature"


def test_a_token_has_8_kib_at_most() -> None:
    reader = tokens()
    longest = signed(claims(pad="x" * 5900))
    assert 8000 < len(longest) <= 8192
    assert reader.principal(longest).subject == "ann"
    assert reason(signed(claims(pad="x" * 6200)), reader) == "malformed"


def test_a_token_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    reader = tokens(clock)
    token = signed(claims(exp=NOW + 60))
    first = reader.principal(token)
    assert reader.principal(token) is first
    assert reader.hits == 1
    clock.now = NOW + 69
    assert reader.principal(token) is first
    clock.now = NOW + 70
    assert reason(token, reader) == "expired"


def test_a_token_that_is_early_is_good_later() -> None:
    clock = Clock()
    reader = tokens(clock)
    token = signed(claims(nbf=NOW + 60))
    assert reason(token, reader) == "early"
    clock.now = NOW + 60
    assert reader.principal(token).subject == "ann"


def test_bad_tokens_push_no_good_one_out() -> None:
    reader = tokens()
    good = signed(claims())
    reader.principal(good)
    head, body, _ = good.split(".")
    for number in range(MOST_REFUSED + 10):
        with pytest.raises(Unauthenticated):
            reader.principal(f"{head}.{body}.{encoded(number.to_bytes(32)).decode()}")
    hits = reader.hits
    reader.principal(good)
    assert reader.hits == hits + 1


@pytest.mark.parametrize("grants", [0, 20, 200])
def test_what_is_kept_of_good_tokens_is_bounded(grants: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the memory that it takes: a token's rights are several times as long as the token."""
    most = 4 << 20
    monkeypatch.setattr("tidegate_common.auth.tokens.MOST_KEPT_BYTES", most)
    rights = {"subscribe": [f"topic:prices.{number}" for number in range(grants)]}
    come = [signed(claims(sub=f"user {number}", tidegate=rights)) for number in range(4000 if grants < 200 else 1000)]
    reader = tokens()
    tracemalloc.start()
    try:
        for each in come:
            reader.principal(each)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most / 3 < held < most * 1.5


def named(key: RSAKey, kid: str) -> VerifyingKey:
    """The public part, as it comes out of a JWKS: another object each time."""
    return VerifyingKey(RSAKey.import_key(key.as_dict(private=False)), RS256, frozenset({"RS256"}), kid)


def test_keys_that_are_gone_are_good_no_more() -> None:
    first, second = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
    reader = tokens()
    wanted: list[None] = []
    reader.on_unknown_key = lambda: wanted.append(None)
    withdrawn: list[None] = []
    reader.on_withdrawn.append(lambda: withdrawn.append(None))
    ann = signed(claims(), {"alg": "RS256", "kid": "1"}, first)
    bob = signed(claims(sub="bob"), {"alg": "RS256", "kid": "2"}, second)
    own = reader.principal(signed(claims(sub="own")))
    assert reason(ann, reader) == "kid"
    assert len(wanted) == 2
    reader.use([named(first, "1")])
    one = reader.principal(ann)
    assert reader.principal(signed(claims(), {"alg": "RS256"}, first)).subject == "ann"
    reader.use([named(first, "1"), named(second, "2")])
    two = reader.principal(bob)
    assert reader.principal(ann) is one, "a set with more keys takes nothing away"
    assert not withdrawn
    reader.use([named(second, "2")])
    assert reason(ann, reader) == "kid"
    assert reader.principal(bob) is two
    assert len(withdrawn) == 1
    assert [reader.withdrawn(each) for each in (one, two, own)] == [True, False, False]
    reader.use([])
    assert reason(bob, reader) == "kid"
    assert len(withdrawn) == 1, "a provider that is away for a day ends no stream"
    assert reader.principal(signed(claims(sub="own"))) is own
    reader.use([named(second, "2")])
    assert not reader.withdrawn(two), "it is the key that it was"
    assert len(withdrawn) == 1
    reader.use([])
    reader.use([named(first, "1")])
    assert reader.withdrawn(two)
    assert len(withdrawn) == 2


def test_whoever_has_a_token_of_a_key_that_is_gone_is_known_however_many_others_came() -> None:
    """Streams last longer than a token is remembered."""
    key = RSAKey.generate_key(2048)
    reader = tokens()
    reader.use([named(key, "1")])
    principal = reader.principal(signed(claims(), {"alg": "RS256", "kid": "1"}, key))
    reader._kept.clear()
    reader.use([named(RSAKey.generate_key(2048), "2")])
    assert reader.withdrawn(principal)


def test_a_key_under_another_name_is_another_key() -> None:
    key = RSAKey.generate_key(2048)
    reader = tokens()
    token = signed(claims(), {"alg": "RS256", "kid": "1"}, key)
    reader.use([named(key, "1")])
    reader.principal(token)
    reader.use([named(key, "2")])
    assert reason(token, reader) == "kid"


def test_a_token_without_a_kid_is_not_tried_with_all_of_a_set() -> None:
    keys = [RSAKey.generate_key(2048) for _ in range(2)]
    reader = tokens()
    reader.use([named(key, str(number)) for number, key in enumerate(keys)])
    assert reason(signed(claims(), {"alg": "RS256"}, keys[0]), reader) == "kid"
    assert reader.principal(signed(claims(), {"alg": "RS256", "kid": "1"}, keys[1])).subject == "ann"
    assert reason(signed(claims(), {"alg": "RS256", "kid": "0"}, keys[1]), reader) == "signature"
    assert reason(signed(claims(), {"alg": "HS256", "kid": "0"}, OTHER), reader) == "signature"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["sub", "exp", "iat", "nbf", "iss", "aud", "jti", "tidegate"])
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "zip", "enc"])
READER = tokens()


def outcome(token: str) -> Principal | str:
    try:
        return READER.principal(token)
    except Unauthenticated as error:
        return error.reason


@given(told=st.dictionaries(NAMES, JSON, min_size=1))
def test_no_claims_make_an_error_of_another_kind(told: dict[str, Any]) -> None:
    """Whoever gets in has a subject that is a name, and an end within the longest time."""
    found = outcome(signed(claims(**told)))
    if isinstance(found, Principal):
        assert found.subject == {**claims(), **told}["sub"]
        assert found.expires <= NOW + 10 + 86_400 + 10


@given(told=st.dictionaries(HEADER_NAMES, JSON, min_size=1), by=st.sampled_from(["HS256", "none", "HS512"]))
def test_no_header_lets_a_forged_token_in(told: dict[str, Any], by: str) -> None:
    assert isinstance(outcome(signed(claims(), {"alg": "HS256", **told}, OTHER, by)), str)


@given(told=JSON, header=JSON)
def test_no_json_makes_an_error_of_another_kind(told: Any, header: Any) -> None:
    assert isinstance(outcome(signed(json.dumps(told).encode(), json.dumps(header).encode())), str)


@given(text=st.text(alphabet=st.characters(max_codepoint=255), max_size=300))
def test_no_text_makes_an_error_of_another_kind(text: str) -> None:
    assert isinstance(outcome(text), str)


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_changed_token_gets_in(where: int, bit: int) -> None:
    good = signed(claims(jti="x"))
    position = where % len(good)
    changed = chr(ord(good[position]) ^ (1 << bit))
    found = outcome(good[:position] + changed + good[position + 1 :])
    assert isinstance(found, str)


PUBLIC = {"RS256": new_key("RS256"), "ES256": new_key("ES256"), "EdDSA": new_key("EdDSA")}
BY_PUBLIC = tokens(auth_secret=())
BY_PUBLIC.use(read_jwks(jwks(*PUBLIC.items())))


@given(
    algorithm=st.sampled_from(sorted(PUBLIC)), kid=st.sampled_from(sorted(PUBLIC)), signature=st.binary(max_size=300)
)
def test_no_made_up_signature_gets_in(algorithm: str, kid: str, signature: bytes) -> None:
    """Of any length, and under the key of another algorithm: the library's own errors are refusals, too."""
    unsigned = signed(claims(), {"alg": algorithm, "kid": kid}, by="none")
    with pytest.raises(Unauthenticated) as refused:
        BY_PUBLIC.principal(unsigned + encoded(signature).decode())
    assert refused.value.reason == ("signature" if algorithm == kid else "algorithm")


def test_keys_of_all_algorithms_stand_in_one_set() -> None:
    for algorithm, key in PUBLIC.items():
        assert BY_PUBLIC.principal(signed(claims(), {"alg": algorithm, "kid": algorithm}, key)).subject == "ann"
    assert BY_PUBLIC.principal(signed(claims(), {"alg": "Ed25519", "kid": "EdDSA"}, PUBLIC["EdDSA"], "EdDSA"))
