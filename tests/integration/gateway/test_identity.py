"""Who may open a stream."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.gateway import running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.nats import nats_server
from tests.support.ways import BOTH_PATHS


@BOTH_PATHS
async def test_a_stream_needs_a_token(tmp_path: Path, streams: str) -> None:
    async with (
        nats_server(tmp_path) as nats,
        running_gateway(nats.url, streams=streams, **AUTH) as running,
        httpx.AsyncClient() as client,
    ):
        refused = await client.get(f"{running.url}/api/sse")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        async with client.stream("GET", f"{running.url}/api/sse", headers=bearer(token("ann"))) as response:
            assert response.status_code == 200
