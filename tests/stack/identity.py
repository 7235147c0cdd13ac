"""The stack in the mode `token`: who checks it says who they are."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.stack.outside import SAID, docker

SECRET = secrets.token_hex(32)
KEY = f"tgk_shop_{secrets.token_urlsafe(32)}"
"""Of a service that may publish to everybody, and no more."""

KEYS_FILE = f"""
[[key]]
id = "shop"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
publish = ["user:*", "client:*", "topic:>", "broadcast"]
"""

EVERYTHING: dict[str, Any] = {
    "subscribe": ["topic:>", "broadcast", "client:*"],
    "publish": ["topic:>", "broadcast", "client:*", "user:*"],
    "jobs": {},
    "admin": ["presence", "kick", "dead", "revoke", "events", "ops", "metrics"],
}


def token(sub: str, **claims: Any) -> str:
    """An HS256 token that is good for an hour (RFC 7515), with `claims` in `tidegate`."""
    now = int(time.time())
    told = {"sub": sub, "aud": "tidegate", "iat": now, "exp": now + 3600, "tidegate": claims}
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, told))
    return f"{signed}.{_encoded(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bearer(text: str) -> list[str]:
    """curl's options for a request that brings a token or a key."""
    return ["-H", f"Authorization: Bearer {text}"]


@contextlib.contextmanager
def everyone_is_asked() -> Iterator[None]:
    """The stack in the mode `token`, and then as it was. Who checks brings a token that may do everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "auth_secret").write_text(f"{SECRET}\n")
        (folder / "api_keys.toml").write_text(KEYS_FILE)
        folder.chmod(0o755)  # the services read it as another user
        settings = {
            "TIDEGATE_AUTH": "token",
            "TIDEGATE_SECRETS_DIR": name,
            "TIDEGATE_AUTH_SECRET_FILE": "/run/tidegate/auth_secret",
            "TIDEGATE_API_KEYS_FILE": "/run/tidegate/api_keys.toml",
        }
        try:
            docker("compose", "up", "-d", "--wait", "--no-build", env=settings)
            SAID[:] = bearer(token("checker", **EVERYTHING))
            yield
        finally:
            SAID.clear()
            docker("compose", "up", "-d", "--wait", "--no-build")
