"""From a token's claims to a principal: the shape of the claim `tidegate`, and what it may hold."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate_common.contract.ids import check_name
from tidegate_common.contract.principal import ADMIN, Grants, JobRights, Principal
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import InvalidField, Unauthenticated

UnixTime = Annotated[float, Meta(ge=0)]
"""Seconds. What is no finite number is refused when it is read."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The claim `tidegate`. A list that is missing grants nothing."""

    subscribe: list[str] = []
    publish: list[str] = []
    jobs: JobRights | None = None
    client: str = ""
    admin: list[str] = []


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims that are read. Those of others are ignored (RFC 7519, 4)."""

    sub: str
    exp: UnixTime
    iat: UnixTime
    nbf: UnixTime = 0.0
    iss: str = ""
    aud: str | list[str] = ""
    jti: str = ""
    tidegate: msgspec.Raw = msgspec.Raw(b"{}")
    """Not read before the signature is: a long list of grants costs more than to check that."""


_claims = msgspec.json.Decoder(Claims)
_claim = msgspec.json.Decoder(Claim)


def read_claims(payload: bytes) -> Claims:
    """Raises Unauthenticated (`malformed`) that names the claim."""
    try:
        return _claims.decode(payload)
    except UNREADABLE as error:
        raise malformed(error) from None


def principal_of(claims: Claims, leeway: float, signed_by: object = None) -> Principal:
    """Raises Unauthenticated (`malformed`) that names the claim."""
    try:
        own = _claim.decode(claims.tidegate)
        check_rights(own.admin, own.jobs, "tidegate.")
        return Principal(
            f"user:{check_name('sub', claims.sub)}",
            subject=claims.sub,
            subscribe=Grants.of(own.subscribe, "tidegate.subscribe"),
            publish=Grants.of(own.publish, "tidegate.publish"),
            jobs=own.jobs,
            admin=frozenset(own.admin),
            client=check_name("tidegate.client", own.client) if own.client else "",
            expires=claims.exp + leeway,
            issued=claims.iat,
            token_id=claims.jti,
            signed_by=signed_by,
        )
    except (InvalidField, *UNREADABLE) as error:
        raise malformed(error) from None


def check_rights(admin: list[str], jobs: JobRights | None, where: str = "") -> None:
    """What a token's and a key's rights have in common. Raises InvalidField."""
    if set(admin) - ADMIN:
        raise InvalidField(f"{where}admin", f"some of {', '.join(sorted(ADMIN))}")
    if jobs and jobs.tokens_per_day is not None and jobs.max_tokens is None:
        raise InvalidField(f"{where}jobs", "max_tokens too, if there is tokens_per_day")


def malformed(why: object) -> Unauthenticated:
    """The error for claims that can't be used. `why` repeats no value of theirs."""
    return Unauthenticated("malformed", detail=f"the token's claims can't be used: {why}")
