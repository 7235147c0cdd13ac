"""Who may open a stream."""

from __future__ import annotations

import httpx

from tests.support.gateway import running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.ways import BOTH_PATHS


@BOTH_PATHS
async def test_a_stream_needs_a_token(nats_url: str, streams: str) -> None:
    async with running_gateway(nats_url, streams=streams, **AUTH) as running, httpx.AsyncClient() as client:
        refused = await client.get(f"{running.url}/api/sse")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        async with client.stream("GET", f"{running.url}/api/sse", headers=bearer(token("ann"))) as response:
            assert response.status_code == 200
