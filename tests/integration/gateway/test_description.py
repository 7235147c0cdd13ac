"""`/openapi.json` of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.routing import BaseRoute, Mount, Route

from tests.support.gateway import running_gateway
from tests.support.identity import AUTH
from tests.support.nats import nats_server


def paths_of(routes: list[BaseRoute], before: str = "") -> set[str]:
    found = set()
    for route in routes:
        if isinstance(route, Mount):
            found |= paths_of(list(route.routes or []), before + route.path)
        elif isinstance(route, Route):
            found.add(before + route.path.replace(":path}", "}"))
    return found


@pytest.mark.parametrize("settings", [{}, AUTH], ids=["open", "token"])
async def test_anybody_may_read_it_and_it_describes_all_that_there_is(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with nats_server(tmp_path) as nats, running_gateway(nats.url, **settings) as running:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{running.url}/openapi.json")
            assert answer.status_code == 200
            described = answer.json()
            validate(described)
            assert bool(described["security"]) == bool(settings)
            routes = paths_of(running.gateway.app.routes)
            page = {path for path in routes if path == "/" or path.startswith("/console")}
            assert set(described["paths"]) == routes - page - {"/openapi.json"}
