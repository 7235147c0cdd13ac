"""`/openapi.json` and a page to read it on, both also below `/api/`. Nothing is loaded from elsewhere."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from publisher_api.http.openapi import document

POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tidegate publisher API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/static/swagger-ui.css">
<div id="api"></div>
<script src="docs/static/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = """SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
"""


def docs_routes(asks: bool) -> list[BaseRoute]:
    """`asks`: whether everyone is asked who they are."""
    description = msgspec.json.encode(document(asks))
    static = StaticFiles(packages=[("swagger_ui", "static")])

    async def openapi(_: Request) -> Response:
        return Response(description, media_type="application/json")

    async def page(_: Request) -> Response:
        return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def start(_: Request) -> Response:
        return Response(START, media_type="text/javascript")

    return [
        route
        for prefix in ("", "/api")
        for route in (
            Route(f"{prefix}/openapi.json", openapi),
            Route(f"{prefix}/docs", page),
            Route(f"{prefix}/docs/start.js", start),
            Mount(f"{prefix}/docs/static", static),
        )
    ]
