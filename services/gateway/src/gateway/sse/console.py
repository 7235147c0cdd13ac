"""The console page at `/`: files of ours, served as they are, with a policy that lets nothing else in."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

POLICY = (
    "default-src 'self'; connect-src 'self' {publisher}; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
USUAL_PORT = 8001
"""Where a page that is told nothing looks for publisher-api, on its own host (api.js)."""

PUBLISHER = '<meta name="tidegate-publisher" content="'
AUTH = '<meta name="tidegate-auth" content="'


class _Assets(StaticFiles):
    """Static files with the page's headers."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(HEADERS)
        response.headers["Content-Security-Policy"] = POLICY.format(publisher="")
        return response


def publisher_source(publisher_url: str, host: str) -> str:
    """Where a page that was served for `host` may talk to publisher-api, as a policy says it (CSP3, 2.3.1)."""
    told = urlsplit(publisher_url or f"//{host}")
    if told.hostname is None:
        return ""
    if ":" in told.hostname:
        return "http: https:"  # the grammar of sources has no IPv6 addresses
    port = told.port if publisher_url else USUAL_PORT
    scheme = f"{told.scheme}://" if told.scheme else ""  # without one: the page's own
    return f"{scheme}{told.hostname}" + (f":{port}" if port else "")


def console_routes(publisher_url: str, *, asks: bool) -> list[BaseRoute]:
    """`/` and `/console/*`. `publisher_url`, and whether everyone is asked who they are, are written into the page."""
    folder = files("gateway.console")
    page = folder.joinpath("index.html").read_text(encoding="utf-8")
    page = page.replace(f'{PUBLISHER}"', f'{PUBLISHER}{html.escape(publisher_url)}"', 1)
    if asks:
        page = page.replace(f'{AUTH}"', f'{AUTH}token"', 1)

    async def index(request: Request) -> Response:
        policy = POLICY.format(publisher=publisher_source(publisher_url, request.headers.get("host", "")))
        headers = {**HEADERS, "Content-Security-Policy": policy}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    return [
        Route("/", index),
        Mount("/console/client", _Assets(directory=_client())),
        Mount("/console", _Assets(packages=[("gateway", "console")])),
    ]


def _client() -> Path:
    """The folder of the JavaScript client: packed into the wheel, or in the repository that this file is edited in."""
    packed = Path(str(files("gateway.console"))) / "client"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[5] / "clients" / "js" / "src"
