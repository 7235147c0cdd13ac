"""Keys of services: what their file may say, and who has one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256

import pytest

from tidegate_common.auth.api_keys import ApiKeys, UnusableKeys, parse
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import Unauthenticated

SECRET = "a-secret_of_43_characters".ljust(43, "x")
KEY, NEW = f"tgk_shop_{SECRET}", f"tgk_shop_{SECRET[::-1]}"


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def shop(*lines: str, keys: tuple[str, ...] = (KEY,)) -> bytes:
    digests = json.dumps([digest(key) for key in keys])
    return "\n".join(["[[key]]", 'id = "shop"', f"sha256 = {digests}", *lines]).encode()


def reason(keys: ApiKeys, key: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        keys.principal(key)
    return refused.value.reason


ALL = (
    'publish = ["user:*", "topic:prices.>"]',
    'subscribe = ["broadcast"]',
    'jobs = {kinds = ["chat"], max_tokens = 7}',
    'admin = ["kick"]',
    "metrics = true",
    'limits = {publishes = "100/200"}',
    "expires = 2027-01-01T00:00:00Z",
)


def test_a_key_may_do_what_its_entry_says() -> None:
    as_json = {
        "key": [
            {
                "id": "shop",
                "sha256": digest(KEY),
                "publish": ["user:*", "topic:prices.>"],
                "subscribe": ["broadcast"],
                "jobs": {"kinds": ["chat"], "max_tokens": 7},
                "admin": ["kick"],
                "metrics": True,
                "limits": {"publishes": "100/200"},
                "expires": "2027-01-01T00:00:00Z",
            }
        ]
    }
    for data in (shop(*ALL), json.dumps(as_json).encode()):
        found = ApiKeys(parse(data), lambda: 1_798_761_599).principal(KEY)
        assert (found.name, found.key, found.subject, found.anonymous) == ("key:shop", "shop", "", False)
        assert found.publish.allows("user.ann")
        assert found.publish.allows("topic.prices.a.b")
        assert not found.publish.allows("broadcast")
        assert found.subscribe.allows("broadcast")
        assert found.jobs is not None
        assert found.jobs.max_tokens == 7
        assert found.admin == {"kick", "metrics"}
        assert found.limits == {"publishes": "100/200"}
        assert reason(ApiKeys(parse(data), lambda: 1_798_761_600), KEY) == "expired"


def test_what_is_missing_grants_nothing() -> None:
    found = ApiKeys(parse(shop())).principal(KEY)
    assert found.jobs is None
    assert not found.admin
    assert not found.subscribe.allows("broadcast")
    assert not found.publish.allows("user.ann")
    assert found.expires == 0
    assert not parse(b"")


@pytest.mark.parametrize(
    "key",
    [
        NEW, KEY[:-1], f"{KEY}a", KEY.upper(), f"tgk_other_{SECRET}", f"tgk__{SECRET}", "tgk_", "tgk_shop_", SECRET,
        f"tgk_shop_{'é' * 43}", f"{KEY}\n", digest(KEY), "tgk_" + "x" * 9000,
    ],
)  # fmt: skip
def test_no_other_key_is_known(key: str) -> None:
    assert reason(ApiKeys(parse(shop())), key) == "unknown"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"key", "end of document"),
        (b"{", "truncated"),
        (b"[]", "Invalid"),
        (b"\xff", "utf-8"),
        (b"keys = []", "keys"),
        (b"[[key]]\nid = 'a'", "sha256"),
        (b"[[key]]\nsha256 = '" + digest(KEY).encode() + b"'", "`id`"),
        (shop('publishes = ["user:*"]'), "publishes"),
        (shop('publish = ["users:*"]'), "key[0].publish[0]"),
        (shop('publish = "user:*"'), "$.key[0].publish"),
        (shop('admin = ["root"]'), "key[0].admin"),
        (shop("jobs = {tokens_per_day = 5}"), "key[0].jobs"),
        (shop('jobs = {model = ["small"]}'), "model"),
        (shop('limits = {publishes = "fast"}'), "key[0].limits.publishes"),
        (shop('limits = {publish = "1/2"}'), "publish"),
        (shop('expires = "tomorrow"'), "expires"),
        (shop("expires = 2027-01-01T00:00:00"), "expires"),
        (shop().replace(b"shop", b"Shop"), "$.key[0].id"),
        (shop().replace(b"shop", b"a_b"), "$.key[0].id"),
        (shop().replace(digest(KEY).encode(), KEY.encode()), "$.key[0].sha256"),
        (shop(keys=()), "$.key[0].sha256"),
        (shop(keys=(KEY, KEY)), "key[0].sha256: the same"),
        (shop() + b"\n" + shop(keys=(NEW,)), "key[1].id: shop is there twice"),
        (shop() + b"\n" + shop().replace(b"shop", b"other"), "key[1].sha256: the same"),
        (b" " * (1 << 20) + b"\n", "over"),
        (b'{"key": ' + b"[" * 9000, ""),
        (b"key = " + b"[" * 9000, ""),
    ],
)  # fmt: skip
def test_a_bad_file_says_where(data: bytes, told: str) -> None:
    with pytest.raises(UnusableKeys) as refused:
        parse(data)
    assert told in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_key_that_somebody_thought_of_is_none() -> None:
    """The digest is of no key that has 256 random bits."""
    for weak in ("tgk_shop_secret", "tgk_shop_", "secret", f"tgk_shop_{'x' * 42}"):
        assert reason(ApiKeys(parse(shop(keys=(weak,)))), weak) == "unknown"


def test_two_keys_of_one_id_are_good_while_one_takes_the_others_place() -> None:
    keys = ApiKeys(parse(shop(keys=(KEY, NEW))))
    first, second = keys.principal(KEY), keys.principal(NEW)
    assert first.key == second.key == "shop"
    changes: list[Mapping[Principal, Principal | None]] = []
    keys.on_change.append(changes.append)
    keys.use(parse(shop(keys=(NEW,))))
    assert reason(keys, KEY) == "unknown"
    # The entry is another: whoever has the second key gets a principal that may do the same.
    assert changes == [{first: None, second: keys.principal(NEW)}]


def test_only_what_has_changed_is_told() -> None:
    other = b'\n[[key]]\nid = "other"\nsha256 = "' + digest("x").encode() + b'"'
    keys = ApiKeys(parse(shop()))
    before = keys.principal(KEY)
    changes: list[Mapping[Principal, Principal | None]] = []
    keys.on_change.append(changes.append)
    keys.use(parse(shop() + other))
    assert keys.principal(KEY) is before
    assert not changes
    keys.use(parse(shop("metrics = true") + other))
    now = keys.principal(KEY)
    assert changes == [{before: now}]
    assert now.admin == {"metrics"}
