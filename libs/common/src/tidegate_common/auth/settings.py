"""What a process reads from its environment about who may come."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate_common.auth.limits import Rate
from tidegate_common.contract.principal import Grants
from tidegate_common.errors import InvalidField

LEAST_SECRET_BYTES = 32


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of identity and limits, read by every service."""

    auth: str = ""
    """`open`: no one is asked who they are. `token`: everyone is. Without it, `open`, and only loopback is served."""
    auth_secret: tuple[str, ...] = ()
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
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """`/metrics` on a port of its own, which asks nobody who they are; 0: at the service's own port."""

    @property
    def asks(self) -> bool:
        """Whether everyone is asked who they are."""
        return self.auth == "token"

    def auth_faults(self) -> list[str]:
        """What can't be used."""
        found = []
        if self.auth not in ("", "open", "token"):
            found.append("TIDEGATE_AUTH: open or token")
        if any(len(secret.encode()) < LEAST_SECRET_BYTES for secret in self.auth_secret):
            found.append(f"TIDEGATE_AUTH_SECRET: each secret has {LEAST_SECRET_BYTES} bytes or more")
        try:
            Grants.of(self.auth_anonymous, "TIDEGATE_AUTH_ANONYMOUS")
        except InvalidField as error:
            found.append(str(error))
        for name in ("connects", "publishes", "jobs", "auth_failures"):
            try:
                Rate.of(getattr(self, f"limit_{name}"))
            except ValueError as error:
                found.append(f"TIDEGATE_LIMIT_{name.upper()}: {error}")
        return found
