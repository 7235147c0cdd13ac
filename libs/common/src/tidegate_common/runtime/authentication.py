"""Within ASGI, each request has a principal before anything else is done for it."""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate_common.auth.identity import Identity
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import TidegateError
from tidegate_common.runtime.hosts import Responder, problem
from tidegate_common.runtime.problems import REFUSED, mark_refused, trace_of

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
        identity: Identity,
        open_paths: Collection[str] = (),
        open_starts: tuple[str, ...] = (),
        own_paths: Collection[str] = (),
        own_starts: tuple[str, ...] = (),
        refusal: Responder = problem,
    ) -> None:
        """`own_*` are paths whose endpoint asks the authenticator itself."""
        self._app = app
        self._authenticator = identity.authenticator
        self._audit = identity.audit_log
        self._passed = OPEN_PATHS.union(open_paths, own_paths)
        self._starts = (*open_starts, *own_starts)
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if not self._passes(scope):
                if self._authenticator.asks:
                    send = _private(send)
                scope[PRINCIPAL] = await self._authenticator.principal(scope["headers"], _address(scope))
        except TidegateError as error:
            mark_refused(scope, error)
            await self._refusal(scope, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
        finally:
            if REFUSED in scope:
                self._note(scope, scope[REFUSED])

    def _note(self, scope: Scope, error: Exception) -> None:
        what, trace_id = f"{scope['method']} {scope['path']}", trace_of(error, scope["headers"])
        self._audit.refused(scope.get(PRINCIPAL), what, _address(scope), trace_id, error)

    def _passes(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return (
            scope["method"] == "OPTIONS"
            or path in self._passed
            or (bool(self._starts) and path.startswith(self._starts))
        )


def _private(send: Send) -> Send:
    """No cache keeps what somebody was answered. A shared one knows by `Authorization` that it must not, but tells
    nobody apart who bring a cookie (RFC 9111, 3.5)."""

    def sent(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if b"cache-control" not in [name.lower() for name, _ in headers]:
                message = {**message, "headers": [*headers, (b"cache-control", b"no-store")]}
        return send(message)

    return sent


def address_of(request: HTTPConnection) -> str:
    """Where `request` comes from: what a trusted proxy tells, or else the peer's."""
    return _address(request.scope)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def principal_of(request: HTTPConnection) -> Principal:
    """Who `request` is from."""
    found: Principal = request.scope[PRINCIPAL]
    return found
