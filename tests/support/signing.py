"""Tokens of any shape, as an attacker or another issuer would make them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from joserfc.jwa import HMACAlgorithm
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tests.support.identity import SECRET
from tidegate_common.auth.keyset import EDDSA, ES256, HS256, RS256

SIGNERS = {"HS256": HS256, "RS256": RS256, "ES256": ES256, "EdDSA": EDDSA, "HS512": HMACAlgorithm(512)}


def new_key(algorithm: str) -> Key:
    """A private key for `algorithm`."""
    match algorithm:
        case "RS256":
            return RSAKey.generate_key(2048)
        case "ES256":
            return ECKey.generate_key("P-256")
    return OKPKey.generate_key("Ed25519")


def claims(**others: Any) -> dict[str, Any]:
    """Claims of a good token, with `others` in the place of some; None takes one away."""
    now = int(time.time())
    told = {"sub": "ann", "aud": "tidegate", "iat": now, "exp": now + 600, **others}
    return {name: value for name, value in told.items() if value is not None}


def signed(
    told: dict[str, Any] | bytes, header: dict[str, Any] | bytes | None = None, key: Key | str = SECRET, by: str = ""
) -> str:
    """A token with that header, signed by the algorithm that it names, or `by` another. Bytes are taken as they are."""
    named: dict[str, Any] | bytes = {"alg": "HS256"} if header is None else header
    head = named if isinstance(named, bytes) else json.dumps(named).encode()
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    message = encoded(head) + b"." + encoded(body)
    algorithm = by or (str(named.get("alg")) if isinstance(named, dict) else "HS256")
    found = OctKey.import_key(key) if isinstance(key, str) else key
    signature = SIGNERS[algorithm].sign(message, found) if algorithm in SIGNERS else b""
    return (message + b"." + encoded(signature)).decode()


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwks(*keys: tuple[str, Key]) -> bytes:
    """A JWKS with the public part of each key under its `kid`."""
    return json.dumps({"keys": [{**key.as_dict(private=False), "kid": kid} for kid, key in keys]}).encode()
