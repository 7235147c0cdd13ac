"""What a process reads from its environment about who may come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tidegate_common.auth import api_keys
from tidegate_common.auth.jwks import check_address
from tidegate_common.auth.keyset import MOST_UNNAMED, UnusableKey, VerifyingKey, read_file, secret_key
from tidegate_common.auth.limits import Rate
from tidegate_common.contract.principal import Grants
from tidegate_common.errors import InvalidField

LEAST_SECRET_BYTES = 32

SECRET = Meta(extra={"secret": True})
"""Annotation of a field whose value stands in no text that is made of the settings."""

_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/?#]+")
_COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of identity and limits, read by every service."""

    auth: str = ""
    """`open`: no one is asked who they are. `token`: everyone is. Without it, `open`, and only loopback is served."""
    auth_secret: Annotated[tuple[str, ...], SECRET] = ()
    """Secrets of HS256, each of 32 bytes or more. More than one: any of them is good (rotation)."""
    auth_keys: str = ""
    """A file of public keys, PEM or JWKS."""
    auth_jwks_url: str = ""
    """The https address of a JWKS."""
    auth_issuer: str = ""
    auth_audience: str = "tidegate"
    auth_leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 10
    auth_max_token_seconds: Annotated[float, Meta(gt=0)] = 86_400
    """How far a token's `exp` may be from its `iat`."""
    auth_cookie: str = ""
    """Name of a cookie that brings the token; empty: none is read."""
    auth_anonymous: tuple[str, ...] = ()
    """What whoever brings nothing may listen to: `broadcast,topic:public.>`."""
    api_keys_file: str = ""
    """TOML or JSON."""
    limit_connects: str = ""
    """`rate/burst`, per second, for each subject or key, else address; empty: none."""
    limit_publishes: str = ""
    limit_jobs: str = ""
    limit_auth_failures: str = "10/200"
    """For each address."""
    audit_log: Literal["on", "off"] = "on"
    """Whether there is one, in the mode `token`."""
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """`/metrics` on a port of its own, which asks nobody who they are; 0: at the service's own port."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call from a browser; `*` for all."""

    def __repr__(self) -> str:
        """Without values: some are secrets, and a stack or a test's message would show them."""
        return f"<{type(self).__name__}>"

    @property
    def asks(self) -> bool:
        """Whether everyone is asked who they are."""
        return self.auth == "token"

    def auth_faults(self) -> list[str]:
        """What can't be used."""
        found = []
        if self.auth not in ("", "open", "token"):
            found.append("TIDEGATE_AUTH: open or token")
        found += self._mode_faults()
        found += [
            f"TIDEGATE_CORS_ORIGINS: {origin} is no origin: scheme, host and port alone, as in https://app.example"
            for origin in self.cors_origins
            if not _ORIGIN.fullmatch(origin)
        ]
        for name, read in self._readings():
            try:
                read()
            except (ValueError, InvalidField) as error:
                found.append(f"{name}: {error}" if isinstance(error, ValueError) else str(error))
        return found

    def _mode_faults(self) -> list[str]:
        """A mode without what it needs, or what counts in a mode that is not on: whoever set it believes that it is."""
        given = {
            "TIDEGATE_AUTH_SECRET": self.auth_secret,
            "TIDEGATE_AUTH_KEYS": self.auth_keys,
            "TIDEGATE_AUTH_JWKS_URL": self.auth_jwks_url,
            "TIDEGATE_API_KEYS_FILE": self.api_keys_file,
        }
        others = {
            "TIDEGATE_AUTH_ISSUER": self.auth_issuer,
            "TIDEGATE_AUTH_COOKIE": self.auth_cookie,
            "TIDEGATE_AUTH_ANONYMOUS": self.auth_anonymous,
        }
        if not self.asks:
            return [
                f"{name}: it counts with TIDEGATE_AUTH=token alone, and nobody is asked who they are now"
                for name, value in {**given, **others}.items()
                if value
            ]
        found = []
        if not any(given.values()):
            found.append(f"TIDEGATE_AUTH: token needs one or more of {', '.join(given)}")
        if self.auth_jwks_url and not self.auth_issuer:
            found.append("TIDEGATE_AUTH_ISSUER: it is needed with TIDEGATE_AUTH_JWKS_URL, as in https://id.example")
        return found

    def _readings(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """How each setting is read that is more than its type says, by the variable's name."""
        yield "TIDEGATE_AUTH_SECRET", self._secrets
        yield "TIDEGATE_AUTH_KEYS", self._public_keys
        if self.auth_jwks_url:
            yield "TIDEGATE_AUTH_JWKS_URL", lambda: check_address(self.auth_jwks_url)
        if self.auth_cookie:
            yield "TIDEGATE_AUTH_COOKIE", lambda: check_cookie(self.auth_cookie)
        yield "TIDEGATE_AUTH_ANONYMOUS", lambda: Grants.of(self.auth_anonymous, "TIDEGATE_AUTH_ANONYMOUS")
        if self.api_keys_file:
            name = f"TIDEGATE_API_KEYS_FILE: {self.api_keys_file}"
            yield name, lambda: api_keys.parse(api_keys.read(self.api_keys_file))
        for name in ("connects", "publishes", "jobs", "auth_failures"):
            yield f"TIDEGATE_LIMIT_{name.upper()}", partial(Rate.of, getattr(self, f"limit_{name}"))

    def signing_keys(self) -> list[VerifyingKey]:
        """The keys of tokens that the settings name themselves. Raises UnusableKey."""
        return [*self._secrets(), *self._public_keys()]

    def _secrets(self) -> list[VerifyingKey]:
        if any(len(secret.encode()) < LEAST_SECRET_BYTES for secret in self.auth_secret):
            raise UnusableKey(f"each secret has {LEAST_SECRET_BYTES} bytes or more")
        if len(self.auth_secret) > MOST_UNNAMED:
            raise UnusableKey(f"at most {MOST_UNNAMED} secrets, since each may have to be tried")
        return [secret_key(secret) for secret in self.auth_secret]

    def _public_keys(self) -> list[VerifyingKey]:
        return read_file(self.auth_keys) if self.auth_keys else []


def check_cookie(name: str) -> None:
    """Raises ValueError if no cookie can have the `name` (RFC 6265: a token of HTTP)."""
    if not _COOKIE.fullmatch(name):
        raise ValueError("a cookie's name, as in __Host-tidegate")
