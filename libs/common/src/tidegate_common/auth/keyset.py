"""Keys that tokens are signed with. Each is for one algorithm, which the key decides and never the token.

A token's `alg` only has to be the name of its key's algorithm. Else a public key, which everybody has, would do as the
secret of an HS256 token.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwa import EdDSAAlgorithm, ESAlgorithm, HMACAlgorithm, JWSAlgModel, RSAAlgorithm
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import Unauthenticated

MOST_BYTES = 65_536
"""Of a set of keys."""

MOST_UNNAMED = 16
"""Secrets and keys without a `kid`, of which each may have to be tried."""

RSA_BITS = range(2048, 8193)
"""Shorter ones are broken, and longer ones make each check slow."""

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


class VerifyingKey(NamedTuple):
    """A key with its algorithm. `names` is what a token's `alg` may call that."""

    key: Key
    algorithm: JWSAlgModel
    names: frozenset[str]
    kid: str = ""

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is of `message` by this key."""
        return self.algorithm.verify(message, signature, self.key)

    @property
    def public(self) -> bool:
        return not isinstance(self.key, OctKey)

    @property
    def identity(self) -> tuple[str, str]:
        """The same for what is the same key under the same name."""
        return self.kid, self.key.thumbprint()


HS256, RS256, ES256 = HMACAlgorithm(256), RSAAlgorithm(256), ESAlgorithm("ES256", "P-256", 256)
EDDSA = EdDSAAlgorithm()
EDDSA_NAMES = frozenset({"EdDSA", "Ed25519"})
"""The one algorithm by its names in RFC 8037 and RFC 9864."""
PUBLIC_NAMES = frozenset({"RS256", "ES256"}) | EDDSA_NAMES


_Kind = type[RSAKey] | type[ECKey] | type[OKPKey]
_KINDS: dict[tuple[str, str], tuple[_Kind, tuple[str, ...]]] = {
    ("RSA", ""): (RSAKey, ("n", "e")),
    ("EC", "P-256"): (ECKey, ("crv", "x", "y")),
    ("OKP", "Ed25519"): (OKPKey, ("crv", "x")),
}
"""By `kty` and `crv`, with the members that make the key."""


class UnusableKey(ValueError):
    """A key that tokens can't be checked with; says why."""


class Unsuitable(UnusableKey):
    """A key of a set that is for something else: to encrypt, or of another algorithm."""


class KeySet:
    """Keys to choose from by a token's `kid` and `alg`."""

    def __init__(self, keys: Iterable[VerifyingKey] = ()) -> None:
        self.keys = tuple(keys)
        self.identities = frozenset(key.identity for key in self.keys)
        self._unnamed = tuple(key for key in self.keys if not key.kid)
        self._named: dict[str, list[VerifyingKey]] = {}
        for key in self.keys:
            if key.kid:
                self._named.setdefault(key.kid, []).append(key)

    def candidates(self, algorithm: str, kid: str) -> Sequence[VerifyingKey]:
        """The keys that a token may be signed with. Raises Unauthenticated (`kid`, `algorithm`)."""
        named = self._named.get(kid, ()) if kid else self._only(algorithm)
        found = [key for key in (*named, *self._unnamed) if algorithm in key.names]
        if found:
            return found
        if named or algorithm not in PUBLIC_NAMES:
            raise Unauthenticated("algorithm")
        raise Unauthenticated("kid")

    def _only(self, algorithm: str) -> Sequence[VerifyingKey]:
        """Without a `kid`, a named key is meant if there is one for the algorithm: not all of a set are tried."""
        fitting = [key for key in self.keys if key.kid and algorithm in key.names]
        return fitting if len(fitting) == 1 else ()


class Jwk(msgspec.Struct, frozen=True):
    """What is read of a JSON Web Key (RFC 7517). `d` and `k` are there to be refused."""

    kty: str
    kid: str = ""
    alg: str = ""
    use: str = ""
    key_ops: list[str] | None = None
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""
    d: str = ""
    k: str = ""


class _Set(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


def secret_key(secret: str) -> VerifyingKey:
    """A secret of HS256. Raises UnusableKey for what is a public key."""
    try:
        return VerifyingKey(OctKey.import_key(secret), HS256, frozenset({"HS256"}))
    except ValueError:
        raise UnusableKey("a public key is no secret: name its file in TIDEGATE_AUTH_KEYS") from None


def read_file(path: str) -> list[VerifyingKey]:
    """The public keys of a file, PEM or JWKS. All have to be usable. Raises UnusableKey."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UnusableKey(f"{path} can't be read ({error.strerror})") from None
    if len(data) > MOST_BYTES:
        raise UnusableKey(f"{path} is over {MOST_BYTES} bytes")
    try:
        return read_jwks(data, strict=True) if data.lstrip().startswith(b"{") else _bounded(_pems(data))
    except UnusableKey as error:
        raise UnusableKey(f"{path}: {error}") from None


def read_jwks(data: bytes, *, strict: bool = False) -> list[VerifyingKey]:
    """The keys of a JWKS. Those that are of no use here are left out, unless it is `strict`. Raises UnusableKey."""
    try:
        raws = msgspec.json.decode(data, type=_Set).keys
    except UNREADABLE:
        raise UnusableKey('it is no JWKS: {"keys": [...]}') from None
    found = []
    for number, raw in enumerate(raws, 1):
        try:
            found.append(_read_jwk(raw))
        except UnusableKey as error:
            if strict and not isinstance(error, Unsuitable):
                raise UnusableKey(f"key {number}: {error}") from None
    if not found:
        raise UnusableKey("none of its keys is for RS256, ES256 or EdDSA")
    return _bounded(found)


def _bounded(found: list[VerifyingKey]) -> list[VerifyingKey]:
    if sum(not key.kid for key in found) > MOST_UNNAMED:
        raise UnusableKey(f"at most {MOST_UNNAMED} keys without a kid, since each may have to be tried")
    return found


def _read_jwk(raw: msgspec.Raw) -> VerifyingKey:
    try:
        jwk = msgspec.json.decode(raw, type=Jwk)
    except UNREADABLE:
        raise UnusableKey("it is no JSON Web Key") from None
    if jwk.kty == "oct" or jwk.k:
        raise UnusableKey("a symmetric key: it belongs in TIDEGATE_AUTH_SECRET")
    if jwk.d:
        raise UnusableKey("a private key: give its public part alone")
    if jwk.use not in ("", "sig") or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
        raise Unsuitable("it is not for signatures")
    if (jwk.kty, jwk.crv) not in _KINDS:
        raise Unsuitable("it is of none of the kinds RSA, EC (P-256), OKP (Ed25519)")
    # Its own members alone: what `alg` and `use` say has been read, and the rest is not needed.
    kind, members = _KINDS[jwk.kty, jwk.crv]
    try:
        key = _imported(kind, {"kty": jwk.kty, **{name: getattr(jwk, name) for name in members}})
    except (JoseError, ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey("its numbers are no key") from None
    return _verifying(key, jwk.kid, jwk.alg)


def _pems(data: bytes) -> list[VerifyingKey]:
    found = []
    for number, match in enumerate(_PEM.finditer(data.decode("latin-1")), 1):
        label, text = match[1], match[0].encode("latin-1")
        if "PRIVATE" in label:
            raise UnusableKey(f"key {number}: a private key: give its public part alone")
        try:
            found.append(_verifying(_import_pem(text)))
        except UnusableKey as error:
            raise UnusableKey(f"key {number}: {error}") from None
    if not found:
        raise UnusableKey("neither PEM (-----BEGIN PUBLIC KEY-----) nor a JWKS")
    return found


def _import_pem(text: bytes) -> Key:
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return _imported(kind, text)
        except JoseError:
            continue  # a key of another kind
        except (ValueError, TypeError, UnsupportedAlgorithm):
            break
    raise UnusableKey("no public key that can be read")


def _imported(kind: _Kind, value: Any) -> Key:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns of short keys, which are refused here
        return kind.import_key(value)


def _verifying(key: Key, kid: str = "", named: str = "") -> VerifyingKey:
    """`key` with the algorithm that it is for. Raises Unsuitable if `named` is another, or if there is none."""
    if isinstance(key, RSAKey) and key.raw_value.key_size in RSA_BITS:
        found = VerifyingKey(key, RS256, frozenset({"RS256"}), kid)
    elif isinstance(key, ECKey) and key.curve_name == "P-256":
        found = VerifyingKey(key, ES256, frozenset({"ES256"}), kid)
    elif isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        found = VerifyingKey(key, EDDSA, EDDSA_NAMES, kid)
    else:
        raise Unsuitable("a key of RSA has 2048 to 8192 bits, EC is P-256, OKP is Ed25519")
    if named and named not in found.names:
        raise Unsuitable(f"its alg is another than {', '.join(sorted(found.names))}")
    return found
