"""The endpoints of revocations: from a request to the list and back."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from publisher_api.http.endpoints import answer
from publisher_api.http.job_endpoints import limit_of
from publisher_api.http.slow_bodies import BodyReader
from publisher_api.settings import PublisherSettings
from tidegate_common.auth.identity import Identity
from tidegate_common.contract.revocation import KINDS, Revocation
from tidegate_common.errors import InvalidField
from tidegate_common.runtime.authentication import address_of, principal_of
from tidegate_common.runtime.body import decode
from tidegate_common.runtime.query import once
from tidegate_common.telemetry.propagation import trace_id

PATH = "/api/auth/revocations"
PARAMETERS = {PATH: ("limit", *KINDS)}
MOST_CHARACTERS = 1000
"""Of a name. A `jti` may be longer than other names are."""

Name = Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS)]


class RevocationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/auth/revocations`: exactly one of `sub`, `jti`, `key` and `client_id`."""

    sub: Annotated[Name, Meta(description="All tokens of a user.", examples=["ann"])] | None = None
    jti: Annotated[Name, Meta(description="One token.")] | None = None
    key: Annotated[Name, Meta(description="A service's key, by its id.")] | None = None
    client_id: Annotated[Name, Meta(description="All tokens, where they come as this client.")] | None = None
    before: Annotated[float, Meta(gt=0, description="Unix seconds: tokens issued before; now, if missing.")] | None = (
        None
    )


BODY = msgspec.json.Decoder(RevocationBody)


class RevocationEndpoints:
    """There in the mode `token` alone. Each raises TidegateErrors, which become problem details."""

    def __init__(self, settings: PublisherSettings, identity: Identity) -> None:
        self._revocations = identity.revocations
        self._audit = identity.audit_log
        self._bodies = BodyReader(identity)
        self._most_ahead = settings.auth_max_token_seconds
        """How far `before` may lie ahead, in seconds."""
        self._max_body_bytes = settings.max_body_bytes

    def routes(self) -> list[Route]:
        return [Route(PATH, self.all, methods=["GET", "POST", "DELETE"])]

    async def all(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._revoke(request)
        if request.method == "DELETE":
            return await self._take_back(request)
        return self._list(request)

    async def _revoke(self, request: Request) -> Response:
        if request.state.query:
            raise InvalidField(next(iter(request.state.query)), "in the body")
        body = decode(BODY, await self._bodies.read(request, self._max_body_bytes))
        kind, name = _named({kind: getattr(body, kind) for kind in KINDS})
        before = self._before(kind, body.before)
        principal_of(request).check_admin("revoke")
        with self._act(request, "revoke", kind, name):
            revoked = await self._revocations.revoke(kind, name, before)
        return answer(_shown(revoked), 200)

    async def _take_back(self, request: Request) -> Response:
        query = request.state.query
        if "limit" in query:
            raise InvalidField("limit", "for GET alone")
        kind, name = _named({kind: once(query, kind) for kind in KINDS})
        principal_of(request).check_admin("revoke")
        with self._act(request, "take a revocation back", kind, name):
            await self._revocations.take_back(kind, name)
        return Response(status_code=204)

    def _list(self, request: Request) -> Response:
        named = {kind: once(request.state.query, kind) for kind in KINDS if kind in request.state.query}
        most, one = limit_of(request), _named(named) if named else None
        principal_of(request).check_admin("revoke")
        found, total = self._revocations.latest(most, one)
        return answer({"revocations": [_shown(each) for each in found], "total": total}, 200)

    def _act(self, request: Request, what: str, kind: str, name: str) -> AbstractContextManager[None]:
        return self._audit.act(principal_of(request), what, f"{kind}:{name}", address_of(request), trace_id())

    def _before(self, kind: str, given: float | None) -> float:
        """What a revocation is to have as `before`. Raises InvalidField."""
        if kind not in ("sub", "client_id"):
            if given is not None:
                raise InvalidField("before", "only with sub and client_id: one token or key is revoked as a whole")
            return 0.0
        now = time.time()
        if given is not None and given > now + self._most_ahead:
            raise InvalidField("before", f"Unix seconds, at most {self._most_ahead:g} ahead of now")
        return given or now


def _named(given: dict[str, str | None]) -> tuple[str, str]:
    """Raises InvalidField if it is not exactly one, or can be no name."""
    there = [(kind, name) for kind, name in given.items() if name is not None]
    if len(there) != 1:
        raise InvalidField("sub", f"exactly one of {', '.join(KINDS)}; {len(there) or 'none'} given")
    kind, name = there[0]
    if not 1 <= len(name) <= MOST_CHARACTERS:
        raise InvalidField(kind, f"1 to {MOST_CHARACTERS} characters")
    return kind, name


def _shown(revocation: Revocation) -> dict[str, Any]:
    """`before` null: all; `until` null: it has no end."""
    kind, name = revocation.names
    return {
        kind: name,
        "before": revocation.before or None,
        "until": revocation.until or None,
        "at": revocation.at,
    }
