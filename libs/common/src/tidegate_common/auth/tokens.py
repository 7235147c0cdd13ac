"""Tokens (JWT, RFC 7519): signature and claims are checked once, and the principal is kept until the token's end.

What costs little is checked first. So a flood of tokens that have expired, or that are for others, needs no
signature check at all.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2s

import msgspec
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode

from tidegate_common.auth.claims import Claims, malformed, principal_of, read_claims
from tidegate_common.auth.credentials import MAX_BYTES
from tidegate_common.auth.keyset import KeySet, VerifyingKey
from tidegate_common.auth.recent import Recent
from tidegate_common.auth.settings import AuthSettings
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import Unauthenticated

MOST_KEPT_BYTES = 64 << 20
"""That the principals take which are kept: about 16,000 of tokens of 600 bytes."""

LEAST_KEPT_BYTES, KEPT_BYTES_PER_BYTE = 1_700, 4
"""What one takes, and for each byte of its token (measured): each grant is an object of its own."""

MOST_REFUSED = 4096
"""Bad tokens that are remembered, so that a client that sends one again and again costs no signature check each time.
They have a memory of their own: bad tokens can't push good ones out."""

LASTING = frozenset({"malformed", "signature", "issuer", "audience", "algorithm", "kid"})
"""Reasons that hold as long as the keys are the same."""


class Header(msgspec.Struct, frozen=True):
    """What is read of a token's header (RFC 7515). `jku`, `x5u`, `jwk` and the like are not: keys are configured."""

    alg: str
    kid: str = ""
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_header = msgspec.json.Decoder(Header)


@lru_cache(maxsize=64)
def _read_header(head: bytes) -> Header:
    """Tokens of one issuer begin alike, but for their keys' ids. Raises what can't be read."""
    return _header.decode(urlsafe_b64decode(head))


class Tokens:
    """Reads tokens as the settings say."""

    def __init__(
        self, settings: AuthSettings, configured: list[VerifyingKey], clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._configured = configured
        self._keys = KeySet(configured)
        self._fetched: set[tuple[str, str]] = set()
        """Keys of the last set that had some."""
        self._kept: Recent[Principal] = Recent(MOST_KEPT_BYTES)
        self._refused: Recent[tuple[str, str]] = Recent(MOST_REFUSED)
        self.on_unknown_key: Callable[[], None] | None = None
        """Called when a token names a key that is not there."""
        self.on_withdrawn: list[Callable[[], None]] = []
        """Called when a set has some key no more that the one before had."""
        self.hits = 0
        """Tokens that were known already."""

    @property
    def keyed(self) -> bool:
        """Whether there are keys to check tokens with."""
        return bool(self._keys.keys)

    def use(self, fetched: list[VerifyingKey]) -> None:
        """The keys of a JWKS are `fetched` from now on. Tokens of a key that is gone are good no more."""
        known = {key.identity: key for key in self._keys.keys}
        now = KeySet([*self._configured, *(known.get(key.identity, key) for key in fetched)])
        self._keys = now
        self._kept.drop(self.withdrawn)
        self._refused.clear()
        if not fetched:
            return  # a provider that is away for a day takes nothing away: streams go on to their token's end
        before, self._fetched = self._fetched, {key.identity for key in fetched}
        for listener in () if self._fetched.issuperset(before) else self.on_withdrawn:
            listener()

    def withdrawn(self, principal: Principal) -> bool:
        """Whether the key is gone that its token was checked with."""
        key = principal.signed_by
        # Nearly always it is the very object. One that has been away and is back is another one, with its identity,
        # which is all that a ticket knows of it.
        if key is None:
            return False
        for each in self._keys.keys:  # asked for each stream: `any` takes three times as long
            if each is key:
                return False
        return (key.identity if isinstance(key, VerifyingKey) else key) not in self._keys.identities

    def principal(self, token: str) -> Principal:
        """Raises Unauthenticated."""
        if len(token) > MAX_BYTES:
            raise Unauthenticated("malformed", detail=f"the token is over {MAX_BYTES} bytes")
        raw = token.encode()
        # By its digest: a token is not kept anywhere.
        digest = blake2s(raw).digest()
        kept = self._kept.get(digest)
        if kept is not None:
            self.hits += 1
            if self._clock() >= kept.expires:
                raise Unauthenticated("expired")
            return kept
        refused = self._refused.get(digest)
        if refused is None:
            try:
                principal = self._read(raw)
            except Unauthenticated as error:
                refused = error.reason, str(error)
                if error.reason in LASTING:
                    self._refused.keep(digest, refused, 1)
            else:
                self._kept.keep(digest, principal, LEAST_KEPT_BYTES + KEPT_BYTES_PER_BYTE * len(raw))
                return principal
        else:
            self.hits += 1
        reason, detail = refused
        if reason == "kid" and self.on_unknown_key is not None:
            self.on_unknown_key()
        raise Unauthenticated(reason, detail=detail)

    def _read(self, raw: bytes) -> Principal:
        header, payload, message, signature = _parts(raw)
        candidates = self._keys.candidates(header.alg, header.kid)
        claims = read_claims(payload)
        self._check(claims)
        for key in candidates:
            if key.verifies(message, signature):
                return principal_of(claims, self._settings.auth_leeway_seconds, key)
        raise Unauthenticated("signature")

    def _check(self, claims: Claims) -> None:
        settings, now = self._settings, self._clock()
        leeway = settings.auth_leeway_seconds
        if claims.exp - claims.iat > settings.auth_max_token_seconds:
            raise malformed(f"exp is more than {settings.auth_max_token_seconds:g} s after iat")
        if max(claims.iat, claims.nbf) > now + leeway:
            raise Unauthenticated("early")
        if now >= claims.exp + leeway:
            raise Unauthenticated("expired")
        if settings.auth_issuer and claims.iss != settings.auth_issuer:
            raise Unauthenticated("issuer")
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if settings.auth_audience not in audiences:
            raise Unauthenticated("audience")


def _parts(raw: bytes) -> tuple[Header, bytes, bytes, bytes]:
    """Header, claims, what is signed, and the signature of a token in the compact form. Raises Unauthenticated."""
    message, _, signature = raw.rpartition(b".")
    head, dot, payload = message.partition(b".")
    try:
        if not dot or b"." in payload:
            raise Unauthenticated("malformed")
        parts = _read_header(head), urlsafe_b64decode(payload), message, urlsafe_b64decode(signature)
    except (*UNREADABLE, JoseError, binascii.Error):
        raise Unauthenticated("malformed") from None
    header = parts[0]
    if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
        # Whoever does not understand what is critical has to refuse it (RFC 7515, 4.1.11), and nothing is understood.
        raise Unauthenticated("malformed", detail="the token's header has crit or b64, which are not read here")
    return parts
