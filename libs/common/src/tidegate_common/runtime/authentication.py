"""Within ASGI, each request has a principal before anything else is done for it."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate_common.auth.authenticator import Authenticator
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import TidegateError
from tidegate_common.runtime.hosts import Responder, problem

PRINCIPAL = "tidegate.principal"
"""Under this name each request's scope has its principal."""

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Probes of every service ask as nobody."""


class Authentication:
    """Refuses every request that has no good principal, but for the paths that are open.

    A path that nobody has thought of is refused: an open one is named.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        open_paths: Collection[str] = (),
        open_starts: tuple[str, ...] = (),
        own_paths: Collection[str] = (),
        own_starts: tuple[str, ...] = (),
        refusal: Responder = problem,
    ) -> None:
        """`own_*` are paths whose endpoint asks the authenticator itself."""
        self._app = app
        self._authenticator = authenticator
        self._passed = OPEN_PATHS.union(open_paths, own_paths)
        self._starts = (*open_starts, *own_starts)
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._passes(scope):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        try:
            scope[PRINCIPAL] = await self._authenticator.principal(scope["headers"], client[0] if client else "")
        except TidegateError as error:
            await self._refusal(scope, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return (
            scope["method"] == "OPTIONS"
            or path in self._passed
            or (bool(self._starts) and path.startswith(self._starts))
        )


def address_of(request: HTTPConnection) -> str:
    """Where `request` comes from: what a trusted proxy tells, or else the peer's."""
    return request.client.host if request.client else ""


def principal_of(request: HTTPConnection) -> Principal:
    """Who `request` is from."""
    found: Principal = request.scope[PRINCIPAL]
    return found
