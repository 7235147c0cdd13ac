import pytest

from gateway.settings import GatewaySettings
from tidegate_common.errors import ConfigError
from tidegate_common.runtime.environment import CommonSettings, load


def test_without_variables_the_defaults_of_the_contract_hold() -> None:
    settings = load(GatewaySettings, {})
    assert (settings.nats_url, settings.host, settings.port) == ("nats://127.0.0.1:4222", "127.0.0.1", 8000)
    assert (settings.max_connections, settings.max_connections_per_ip) == (10_000, 100)
    assert (settings.heartbeat_seconds, settings.idle_seconds, settings.max_age_seconds) == (15, 1800, 0)


def test_numbers_and_lists_are_read_and_an_empty_variable_is_not_set() -> None:
    environ = {"TIDEGATE_PORT": "0", "TIDEGATE_CORS_ORIGINS": "http://a, http://b", "TIDEGATE_NATS_URL": ""}
    settings = load(CommonSettings, environ)
    assert settings.port == 0
    assert settings.cors_origins == ("http://a", "http://b")
    assert settings.nats_url == "nats://127.0.0.1:4222"


def test_all_faults_are_said_at_once_by_the_variables_names() -> None:
    with pytest.raises(ConfigError) as caught:
        load(GatewaySettings, {"TIDEGATE_PORT": "70000", "TIDEGATE_HEARTBEAT_SECONDS": "soon"})
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["TIDEGATE_PORT", "TIDEGATE_HEARTBEAT_SECONDS"]


def test_open_mode_on_an_address_that_others_reach_has_to_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="TIDEGATE_AUTH=open"):
        load(CommonSettings, {"TIDEGATE_HOST": "0.0.0.0"})
    assert load(CommonSettings, {"TIDEGATE_HOST": "0.0.0.0", "TIDEGATE_AUTH": "open"}).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEGATE_AUTH", "jwt"),
        ("TIDEGATE_NAMESPACE", "a.b"),
        ("TIDEGATE_TRUSTED_PROXIES", "10.0.0.0/8, nonsense"),
        ("TIDEGATE_LOG_LEVEL", "loud"),
        ("TIDEGATE_PUBLISHER_URL", "javascript:alert(1)"),
        ("TIDEGATE_STREAMS", "fast"),
    ],
)
def test_a_value_that_nothing_can_be_done_with_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load(GatewaySettings, {name: value})
