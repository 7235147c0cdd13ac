"""Each request in a trace: a recorded SERVER span if traces go somewhere, a bare trace id if they don't."""

from __future__ import annotations

import os
import re
from typing import Any

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.trace import Span
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate_common.telemetry.masking import masked
from tidegate_common.telemetry.propagation import attached, context_fields, extract
from tidegate_common.telemetry.providers import Telemetry

UNTRACED = "/healthz$,/readyz$,/metrics$"
STABLE_HTTP = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""The instrumentation's own switch for the stable HTTP conventions, which it reads once."""

_AS_SENT = "tidegate.as_sent"
"""In a scope: the query and the headers that were made readable."""

QUERY = "url.query"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Of any other a span's name says no more than that, as the conventions have it."""

_JOB = re.compile(r"^(/api/ai/(?:chat|jobs|dead))/[^/]+(/retry)?$")
_NAME = re.compile(r"^(/api/presence/(clients|users|topics))/.+$")
_ROUTES = re.compile(
    r"/api/(sse/(send|broadcast|batch)|auth/(revocations|tickets)|ai/(chat|jobs|dead)(/\{job_id\}(/retry)?)?|presence/(clients|users|topics)/\{name\})"
)


def traced(app: ASGIApp, telemetry: Telemetry) -> ASGIApp:
    """`app` within a trace: the caller's, if it brings one."""
    if telemetry.tracing:
        os.environ.setdefault(STABLE_HTTP, "http")
        within = OpenTelemetryMiddleware(
            _AsSent(app),
            excluded_urls=UNTRACED,
            default_span_details=_details,
            server_request_hook=_mask,
            tracer_provider=telemetry.tracer_provider,
            meter_provider=telemetry.meter_provider,
            exclude_spans=["receive", "send"],
        )
        return _Readable(within)
    return _Untraced(app)


def _mask(span: Span, _: Any) -> None:
    """Notes no query, and masks what else a caller may have put a secret into by mistake."""
    for name, value in (getattr(span, "attributes", None) or {}).items():
        if isinstance(value, str):
            told = "" if name == QUERY else masked(value)
            if told != value:
                span.set_attribute(name, told)


def _details(scope: Any) -> tuple[str, dict[str, Any]]:
    """A span's name: method and route. A path that is no route of ours makes no name of its own."""
    method = str(scope.get("method", ""))
    method = method if method in METHODS else "HTTP"
    route = _NAME.sub(r"\1/{name}", _JOB.sub(r"\1/{job_id}\2", scope.get("path", "")))
    if _ROUTES.fullmatch(route):
        return f"{method} {route}", {"http.route": route}
    return method, {}


class _Readable:
    """Hands on a request whose bytes are all UTF-8, as the instrumentation takes them to be: over others it fails."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            query, fields = scope["query_string"], scope["headers"]
            if not all(_is_utf8(value) for value in (query, *(value for _, value in fields))):
                shown = [(name, value.decode(errors="replace").encode()) for name, value in fields]
                readable = query.decode(errors="replace").encode()
                scope = {**scope, "query_string": readable, "headers": shown, _AS_SENT: (query, fields)}
        await self._app(scope, receive, send)


class _AsSent:
    """The same request as its caller sent it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _AS_SENT in scope:
            query, fields = scope[_AS_SENT]
            scope = {**scope, "query_string": query, "headers": fields}
        await self._app(scope, receive, send)


def _is_utf8(raw: bytes) -> bool:
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Untraced:
    """Nothing is recorded, but answers, logs and messages share one trace id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with attached(extract(context_fields(scope["headers"]))):
            await self._app(scope, receive, send)
