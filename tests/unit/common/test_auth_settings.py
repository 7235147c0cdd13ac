"""What the settings of identity may be, and where secrets are read from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ai_worker.settings import WorkerSettings
from tests.support.certificates import certificates
from tests.support.signing import jwks, new_key
from tidegate_common.errors import ConfigError
from tidegate_common.runtime.environment import CommonSettings, load

SECRET = "a secret of these tests: 32 bytes or more"
OTHER = "another secret of these tests: 32 bytes or more"
TOKEN = {"TIDEGATE_AUTH": "token"}
KEYED = {**TOKEN, "TIDEGATE_AUTH_SECRET": SECRET}


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(WorkerSettings, environ)
    for secret in (SECRET, OTHER, "tiny"):
        assert secret not in str(caught.value)
    return caught.value.faults


def test_the_mode_token_serves_others() -> None:
    assert load(CommonSettings, {**KEYED, "TIDEGATE_HOST": "0.0.0.0"}).asks


def test_the_mode_token_needs_something_to_check_tokens_with() -> None:
    (fault,) = faults(TOKEN)
    for name in ("AUTH_SECRET", "AUTH_KEYS", "AUTH_JWKS_URL", "API_KEYS_FILE"):
        assert f"TIDEGATE_{name}" in fault


@pytest.mark.parametrize("mode", ["", "open"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEGATE_AUTH_SECRET", KEYED["TIDEGATE_AUTH_SECRET"]),
        ("TIDEGATE_AUTH_JWKS_URL", "https://id.example/jwks"),
        ("TIDEGATE_AUTH_ISSUER", "https://id.example"),
        ("TIDEGATE_AUTH_COOKIE", "__Host-tidegate"),
        ("TIDEGATE_AUTH_ANONYMOUS", "broadcast"),
    ],
)
def test_a_secret_that_nobody_is_asked_for_is_a_mistake(mode: str, name: str, value: str) -> None:
    (fault,) = faults({"TIDEGATE_AUTH": mode, name: value})
    assert fault.startswith(f"{name}: it counts with TIDEGATE_AUTH=token alone")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TIDEGATE_AUTH_SECRET", "tiny", "32 bytes or more"),
        ("TIDEGATE_AUTH_SECRET", f"{OTHER}-1,tiny", "32 bytes or more"),
        ("TIDEGATE_AUTH_SECRET", ",".join(f"{OTHER}{n}" for n in range(17)), "at most 16"),
        ("TIDEGATE_AUTH_KEYS", "/nowhere.pem", "can't be read"),
        ("TIDEGATE_AUTH_JWKS_URL", "http://id.example/jwks", "https alone"),
        ("TIDEGATE_AUTH_JWKS_URL", "http://localhost/jwks", "https alone"),
        ("TIDEGATE_AUTH_JWKS_URL", "ftp://127.0.0.1/jwks", "https alone"),
        ("TIDEGATE_AUTH_JWKS_URL", "https://ann:pw@id.example/jwks", "neither a user"),
        ("TIDEGATE_AUTH_JWKS_URL", "https:///jwks", "a host"),
        ("TIDEGATE_AUTH_JWKS_URL", "https://[::1/jwks", "no URL"),
        ("TIDEGATE_AUTH_JWKS_URL", "https://a:b/jwks", "no URL"),
        ("TIDEGATE_AUTH_COOKIE", "a b", "a cookie's name"),
        ("TIDEGATE_AUTH_COOKIE", "a=b", "a cookie's name"),
        ("TIDEGATE_AUTH_ANONYMOUS", "topics:a", "broadcast"),
        ("TIDEGATE_API_KEYS_FILE", "/nowhere.toml", "/nowhere.toml: it can't be read"),
        ("TIDEGATE_LIMIT_CONNECTS", "fast", "rate/burst"),
        ("TIDEGATE_AUTH_LEEWAY_SECONDS", "301", "<= 300"),
    ],
)
def test_what_can_not_be_used_is_told_by_name(name: str, value: str, told: str) -> None:
    found = faults({**KEYED, "TIDEGATE_AUTH_ISSUER": "https://id.example", name: value})
    assert len(found) == 1
    assert found[0].startswith(name)
    assert told in found[0]


def test_a_jwks_needs_an_issuer() -> None:
    (fault,) = faults({**TOKEN, "TIDEGATE_AUTH_JWKS_URL": "https://id.example/jwks"})
    assert fault.startswith("TIDEGATE_AUTH_ISSUER")
    for url in ("https://id.example/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]:8080/jwks"):
        load(CommonSettings, {**TOKEN, "TIDEGATE_AUTH_JWKS_URL": url, "TIDEGATE_AUTH_ISSUER": "me"})


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """Whoever puts it there means RS256; everybody could make tokens with it."""
    path = tmp_path / "secret"
    path.write_bytes(new_key("ES256").as_pem(private=False).replace(b"\n", b""))  # type: ignore[union-attr]
    found = faults({**TOKEN, "TIDEGATE_AUTH_SECRET_FILE": str(path)})
    assert found == ["TIDEGATE_AUTH_SECRET: a public key is no secret: name its file in TIDEGATE_AUTH_KEYS"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither PEM"),
        (b"hello", "neither PEM"),
        (b"{", "no JWKS"),
        (b'{"keys": []}', "none of its keys"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "key 1: a symmetric key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key 1: no public key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key 1: a private key"),
        (b" " * 65_537, "over 65536 bytes"),
        (jwks(("a", new_key("ES256"))).replace(b"P-256", b"P-999"), "none of its keys"),
        (jwks(*(("", new_key("EdDSA")) for _ in range(17))), "at most 16"),
    ],
)  # fmt: skip
def test_a_file_of_keys_is_read_at_the_start(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    (fault,) = faults({**TOKEN, "TIDEGATE_AUTH_KEYS": str(path)})
    assert fault.startswith(f"TIDEGATE_AUTH_KEYS: {path}")
    assert told in fault


def test_a_certificate_is_as_good_as_its_key(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    (key,) = load(CommonSettings, {**TOKEN, "TIDEGATE_AUTH_KEYS": str(made.server)}).signing_keys()
    assert key.names == {"ES256"}
    assert "a private key" in faults({**TOKEN, "TIDEGATE_AUTH_KEYS": str(made.server_key)})[0]


def test_a_private_key_is_refused_where_public_ones_belong(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for key in (new_key("RS256"), new_key("ES256"), new_key("EdDSA")):
        path.write_bytes(key.as_pem(private=True))  # type: ignore[union-attr]
        assert "a private key" in faults({**TOKEN, "TIDEGATE_AUTH_KEYS": str(path)})[0]
        path.write_text(json.dumps({"keys": [key.as_dict(private=True)]}))
        assert "a private key" in faults({**TOKEN, "TIDEGATE_AUTH_KEYS": str(path)})[0]


def test_short_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = generate_private_key(65537, 1024).public_key()
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert "2048 to 8192 bits" in faults({**TOKEN, "TIDEGATE_AUTH_KEYS": str(path)})[0]


@pytest.mark.parametrize("text", [f"{OTHER};1\n{OTHER};2\n", f"{OTHER};1,{OTHER};2", f"{OTHER};1\r\n{OTHER};2\r\n"])
def test_a_secret_may_be_in_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text, newline="")
    settings = load(CommonSettings, {**TOKEN, "TIDEGATE_AUTH_SECRET_FILE": str(path)})
    assert settings.auth_secret == (f"{OTHER};1", f"{OTHER};2")


def test_other_secrets_may_be_in_files_too(tmp_path: Path) -> None:
    url, key = tmp_path / "url", tmp_path / "key"
    url.write_text("nats://ann:pw@127.0.0.1:4222\n")
    key.write_text("sk-1,2\n")
    environ = {"TIDEGATE_NATS_URL_FILE": str(url), "OPENAI_API_KEY_FILE": str(key)}
    settings = load(WorkerSettings, environ)
    assert (settings.nats_url, settings.openai_api_key) == ("nats://ann:pw@127.0.0.1:4222", "sk-1,2")


def test_a_files_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    both = {**KEYED, "TIDEGATE_AUTH_SECRET_FILE": str(path)}
    assert faults(both) == ["TIDEGATE_AUTH_SECRET, TIDEGATE_AUTH_SECRET_FILE: one of them, not both"]
    alone = {**TOKEN, "TIDEGATE_AUTH_SECRET_FILE": str(path)}
    assert "can't be read" in faults(alone)[0]
    path.write_bytes(b"\n")
    assert "is empty" in faults(alone)[0]
    path.write_bytes(b"\xff\xfe" * 40)
    assert "UTF-8" in faults(alone)[0]


def test_settings_show_no_value() -> None:
    assert SECRET not in repr(load(CommonSettings, KEYED))


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://app.example/login", "HTTPS://a.example"]
)
def test_an_origin_that_no_browser_sends_is_none(origin: str) -> None:
    (fault,) = faults({"TIDEGATE_CORS_ORIGINS": f"https://fine.example,{origin}"})
    assert fault.startswith(f"TIDEGATE_CORS_ORIGINS: {origin} is no origin")


@pytest.mark.parametrize("origins", ["*", "null", "https://a.example,http://[::1]:8000", "chrome-extension://abc"])
def test_origins_are_as_browsers_send_them(origins: str) -> None:
    assert load(CommonSettings, {"TIDEGATE_CORS_ORIGINS": origins}).cors_origins == tuple(origins.split(","))


def test_a_choice_is_told_with_what_may_be_chosen() -> None:
    (fault,) = faults({"TIDEGATE_AUDIT_LOG": "maybe"})
    assert fault == "TIDEGATE_AUDIT_LOG: one of on, off, got 'maybe'"


def test_whoever_serves_others_is_told_of_both_modes() -> None:
    (fault,) = faults({"TIDEGATE_HOST": "0.0.0.0"})
    assert "TIDEGATE_AUTH=token" in fault
    assert "TIDEGATE_AUTH=open" in fault
