"""What a NATS server says of itself and of its cluster."""

from urllib.parse import urlparse

import pytest
from nats.aio.client import Srv

from tidegate_common.bus.wire.greeting import discovered


@pytest.mark.parametrize(
    ("current", "told", "name"),
    [
        ("nats.example", "10.0.0.2:4222", "nats.example"),
        ("nats.example", "[fd00::2]:4222", "nats.example"),
        ("a.example", "b.example:4222", None),
        ("10.0.0.1", "10.0.0.2:4222", None),
    ],
)
def test_a_server_s_certificate_is_for_its_own_name_where_it_has_one(current: str, told: str, name: str | None) -> None:
    """Each server of a cluster has a certificate of its own. One that was told of by name was asked for the name of the
    server that told of it, so no other server could be gone to."""
    info = {"tls_required": True, "connect_urls": [told]}
    found = discovered(info, Srv(urlparse(f"nats://{current}:4222")))
    assert [each.tls_name for each in found] == [name]


@pytest.mark.parametrize("told", [None, [], ["[::1"], ["host"], ["host:port"], [":4222"], [7]])
def test_what_is_no_address_is_passed_over(told: object) -> None:
    assert discovered({"connect_urls": told}, None) == []
