"""Revocations: who is not to come any more, though their tokens or keys are good."""

from __future__ import annotations

import hashlib

import msgspec

from tidegate_common.contract.principal import Principal

KINDS = ("sub", "jti", "key", "client_id")
"""What one may name."""


class Revocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """It names exactly one of the four. Times are Unix seconds."""

    sub: str = ""
    jti: str = ""
    key: str = ""
    client_id: str = ""
    before: float = 0.0
    """Tokens whose `iat` is before this are revoked; 0: all are."""
    until: float = 0.0
    """From then on no token that it is about can be good anyway; 0: it has no end."""
    at: float = 0.0
    """When it was made."""

    @property
    def names(self) -> tuple[str, str]:
        """Which of the four it names, and how."""
        return next((kind, value) for kind in KINDS if (value := getattr(self, kind)))

    def fits(self, key: str) -> bool:
        """Whether it can be what the bucket has under `key`."""
        named = [(kind, value) for kind in KINDS if (value := getattr(self, kind))]
        return len(named) == 1 and key_of(*named[0]) == key

    def joined(self, other: Revocation) -> Revocation:
        """What both revoke together, which name the same."""
        before = max(self.before, other.before) if self.before and other.before else 0.0
        until = max(self.until, other.until) if self.until and other.until else 0.0
        return msgspec.structs.replace(other, before=before, until=until)

    def applies(self, principal: Principal, client_id: str = "") -> bool:
        """Whether it is about `principal`, or about a stream of theirs that has that client id."""
        kind, value = self.names
        named = {
            "sub": principal.subject,
            "jti": principal.token_id,
            "key": principal.key,
            "client_id": client_id or principal.client,
        }
        return named[kind] == value and (not self.before or principal.issued < self.before)


def key_of(kind: str, value: str) -> str:
    """The bucket's key of a revocation: names may hold what a key may not."""
    return hashlib.sha256(f"{kind}\0{value}".encode()).hexdigest()
