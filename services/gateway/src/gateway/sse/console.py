"""The console page at `/`: files of ours, served as they are, with a policy that lets nothing else in."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

POLICY = (
    "default-src 'self'; connect-src 'self' http: https:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PUBLISHER = '<meta name="tidegate-publisher" content="'


class _Assets(StaticFiles):
    """Static files with the page's headers."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(HEADERS)
        return response


def console_routes(publisher_url: str) -> list[BaseRoute]:
    """`/` and `/console/*`. `publisher_url`, if not empty, is written into the page for its scripts to use."""
    folder = files("gateway.console")
    page = folder.joinpath("index.html").read_text(encoding="utf-8")
    page = page.replace(f'{PUBLISHER}"', f'{PUBLISHER}{html.escape(publisher_url)}"', 1)

    async def index(_: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=HEADERS)

    return [
        Route("/", index),
        Mount("/console/client", _Assets(directory=_client())),
        Mount("/console", _Assets(packages=[("gateway", "console")])),
    ]


def _client() -> Path:
    """The folder of the JavaScript client: packed into the wheel, or in the repository that this file is edited in."""
    packed = Path(str(files("gateway.console"))) / "client"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[5] / "clients" / "js" / "src"
