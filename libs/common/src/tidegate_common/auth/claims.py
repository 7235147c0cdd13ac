"""From a token's claims to a principal: the shape of the claim `tidegate`, and what it may hold."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate_common.contract.ids import check_name
from tidegate_common.contract.principal import ADMIN, Grants, JobRights, Principal
from tidegate_common.errors import InvalidField, Unauthenticated


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The claim `tidegate`. A list that is missing grants nothing."""

    subscribe: list[str] = []
    publish: list[str] = []
    jobs: JobRights | None = None
    client: str = ""
    admin: list[str] = []


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims that are read. Times are Unix seconds."""

    sub: str
    exp: float
    iat: float
    nbf: float = 0.0
    iss: str = ""
    aud: str | list[str] = ""
    jti: str = ""
    tidegate: Claim = Claim()


def principal_of(claims: dict[str, Any] | Claims, leeway: float) -> Principal:
    """Raises Unauthenticated (`malformed`) that names the claim."""
    try:
        found = claims if isinstance(claims, Claims) else msgspec.convert(claims, Claims)
        own = found.tidegate
        check_name("sub", found.sub)
        unknown = sorted(set(own.admin) - ADMIN)
        if unknown:
            raise InvalidField("tidegate.admin", f"some of {', '.join(sorted(ADMIN))}")
        if own.jobs and own.jobs.tokens_per_day is not None and own.jobs.max_tokens is None:
            raise InvalidField("tidegate.jobs", "max_tokens too, if there is tokens_per_day")
        return Principal(
            f"user:{found.sub}",
            subject=found.sub,
            subscribe=Grants.of(own.subscribe, "tidegate.subscribe"),
            publish=Grants.of(own.publish, "tidegate.publish"),
            jobs=own.jobs,
            admin=frozenset(own.admin),
            client=check_name("tidegate.client", own.client) if own.client else "",
            expires=found.exp + leeway,
            issued=found.iat,
            token_id=found.jti,
        )
    except (InvalidField, msgspec.ValidationError) as error:
        raise Unauthenticated("malformed", detail=f"the token's claims can't be used: {error}") from None
