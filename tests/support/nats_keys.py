"""Keys and JWTs of NATS, made here as nsc makes them: an operator, an account and a user that it has signed."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SEED, USER, ACCOUNT, OPERATOR = 18 << 3, 20 << 3, 0, 14 << 3


class Key(NamedTuple):
    """`kind` is one of the above."""

    private: Ed25519PrivateKey
    kind: int

    @property
    def public(self) -> str:
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _written(bytes([self.kind]) + raw)

    @property
    def seed(self) -> str:
        raw = self.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return _written(bytes([SEED | self.kind >> 5, (self.kind & 31) << 3]) + raw)


def new_key(kind: int) -> Key:
    return Key(Ed25519PrivateKey.generate(), kind)


def signed(by: Key, of: Key, name: str, nats: dict[str, Any], seconds: float | None = None) -> str:
    """A JWT about `of`; it is over after `seconds`."""
    claims: dict[str, Any] = {"jti": name, "iat": int(time.time()), "iss": by.public, "name": name, "sub": of.public}
    if seconds is not None:
        claims["exp"] = int(time.time() + seconds)
    claims["nats"] = {**nats, "version": 2}
    head = _url({"typ": "JWT", "alg": "ed25519-nkey"}) + "." + _url(claims)
    return f"{head}.{_bare(by.private.sign(head.encode()))}"


class Operation(NamedTuple):
    """What a server with an operator's JWT needs, and an account whose users it takes."""

    config: str
    account: Key

    def creds(self, seconds: float | None = None) -> str:
        """The text of a `.creds` file of a user who may do everything in the account."""
        user = new_key(USER)
        jwt = signed(self.account, user, "user", {"type": "user", "subs": -1, "data": -1, "payload": -1}, seconds)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def operation() -> Operation:
    operator, account, system = new_key(OPERATOR), new_key(ACCOUNT), new_key(ACCOUNT)
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1}
    jetstream = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    told = signed(operator, operator, "operator", {"type": "operator", "system_account": system.public})
    jwts = {
        account.public: signed(operator, account, "account", {"type": "account", "limits": {**limits, **jetstream}}),
        system.public: signed(operator, system, "system", {"type": "account", "limits": limits}),
    }
    preload = "\n".join(f"{key}: {jwt}" for key, jwt in jwts.items())
    config = f"operator: {told}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{ {preload} }}"
    return Operation(config, account)


def _written(body: bytes) -> str:
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _bare(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _url(data: dict[str, Any]) -> str:
    return _bare(json.dumps(data).encode())
