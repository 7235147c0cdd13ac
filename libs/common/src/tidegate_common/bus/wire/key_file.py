"""A user of NATS who has a key in place of a password: it signs what the server asks, and never leaves this process.

A `.creds` file has a user's JWT, which an account has signed, and the seed of its key; an nkey file has a seed alone.
The file is read for each connection: who renews a JWT writes it anew. Seeds are in the format of nats-io/nkeys.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_SEED, _USER = 18 << 3, 20 << 3
"""First bits of what is written as S…, and as U…."""

_SEED_CHARS = re.compile(r"^\s*(SU[A-Z2-7]{56})\s*$", re.M)
_JWT = re.compile(r"^\s*([\w-]+\.[\w-]+\.[\w-]+)\s*$", re.M | re.A)


class KeyFile(NamedTuple):
    """`variable` is the setting that has named it; `jwt` says whether a JWT has to stand in it."""

    variable: str
    path: str
    jwt: bool

    def credentials(self, nonce: str | None) -> dict[str, str]:
        """What the CONNECT command says of who this is, to a server that has asked by `nonce`.

        Raises ValueError, which repeats nothing of the file.
        """
        seed, jwt = self._read()
        if nonce is None:
            return {}  # the server knows no keys
        key = _key(seed)
        if key is None:
            raise ValueError(f"{self.variable}: the seed in {self.path} is not that of a user's key")
        signature = base64.urlsafe_b64encode(key.sign(nonce.encode())).rstrip(b"=").decode()
        return {"sig": signature, **({"jwt": jwt} if jwt else {"nkey": public_key(key)})}

    def _read(self) -> tuple[str, str]:
        try:
            with open(self.path, encoding="ascii") as file:
                text = file.read(1 << 16)
        except OSError as error:
            raise ValueError(f"{self.variable}: {self.path} can't be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ValueError(f"{self.variable}: {self.path} is no text") from None
        seed, jwt = _SEED_CHARS.search(text), _JWT.search(text)
        if seed is None or (self.jwt and jwt is None):
            wanted = "a user's JWT and its seed (SU…), as nsc writes them" if self.jwt else "a user's seed (SU…)"
            raise ValueError(f"{self.variable}: {self.path} has to hold {wanted}")
        return seed[1], jwt[1] if self.jwt and jwt is not None else ""


def _key(seed: str) -> Ed25519PrivateKey | None:
    """None if `seed` is not what its last two bytes say, or of no user."""
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    body, checked = raw[:-2], int.from_bytes(raw[-2:], "little")
    if binascii.crc_hqx(body, 0) != checked or body[0] & 0xF8 != _SEED or (body[0] & 7) << 5 | body[1] >> 3 != _USER:
        return None
    return Ed25519PrivateKey.from_private_bytes(body[2:])


def public_key(key: Ed25519PrivateKey) -> str:
    """As NATS writes a user's: U…."""
    body = bytes([_USER]) + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).rstrip(b"=").decode()
