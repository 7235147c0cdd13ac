"""Tokens and keys for tests: as an application's own back end would make them."""

from __future__ import annotations

import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

SECRET = "a secret of the tests of 32 bytes or more"
AUTH: dict[str, Any] = {"auth": "token", "auth_secret": (SECRET,)}
"""Settings of a service that asks everyone who they are."""


def token(sub: str, *, seconds: float = 3600, secret: str = SECRET, **claims: Any) -> str:
    """A token of `sub`. `claims` that are standard ones replace those made here; others stand in `tidegate`."""
    now = time.time()
    standard = {"iss", "aud", "exp", "iat", "nbf", "jti"}
    told: dict[str, Any] = {
        "sub": sub,
        "aud": "tidegate",
        "iat": int(now),
        "exp": now + seconds,
        **{name: value for name, value in claims.items() if name in standard},
        "tidegate": {name: value for name, value in claims.items() if name not in standard},
    }
    return jwt.encode({"alg": "HS256"}, told, OctKey.import_key(secret))


def bearer(text: str) -> dict[str, str]:
    """The header that brings a token or a key."""
    return {"Authorization": f"Bearer {text}"}
