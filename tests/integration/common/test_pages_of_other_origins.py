"""What a page of an origin that is allowed may send, to both services."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.bus import broker
from tests.support.gateway import running_gateway
from tests.support.publisher import running_publisher

PAGE = "https://app.example"
FIELDS = ["authorization", "content-type", "idempotency-key", "traceparent", "tracestate", "baggage"]
STREAMS = ["authorization", "last-event-id", "cache-control", "traceparent", "tracestate", "baggage", "content-type"]


def asking(method: str, fields: list[str]) -> dict[str, str]:
    return {
        "origin": PAGE,
        "access-control-request-method": method,
        "access-control-request-headers": ", ".join(sorted(fields)),
    }


@pytest.mark.parametrize("origins", [(PAGE,), ("*",)])
async def test_a_page_may_send_what_clients_send(tmp_path: Path, origins: tuple[str, ...]) -> None:
    """publisher-api refused a page its token: the preflight did not allow `authorization`."""
    async with (
        broker(tmp_path) as (server, _),
        running_publisher(server.url, cors_origins=origins) as (api, _),
        running_gateway(server.url, cors_origins=origins) as running,
        httpx.AsyncClient(base_url=running.url) as gateway,
    ):
        asked = [
            (api, "/api/sse/send", asking("POST", FIELDS)),
            (api, "/api/ai/chat", asking("POST", FIELDS)),
            (api, "/api/ai/chat/x", asking("DELETE", FIELDS)),
            (api, "/api/presence/clients/x", asking("GET", FIELDS)),
            (gateway, "/api/sse", asking("GET", STREAMS)),
            (gateway, "/api/sse", asking("POST", STREAMS)),
            (gateway, "/api/sse/jobs/x", asking("GET", STREAMS)),
            (gateway, "/v1/chat/completions", asking("POST", FIELDS)),
        ]
        for client, path, fields in asked:
            answer = await client.options(path, headers=fields)
            assert answer.status_code == 200, (path, answer.text)
            assert answer.headers["access-control-allow-origin"] in (PAGE, "*")
            allowed = answer.headers["access-control-allow-headers"].lower()
            assert all(field in allowed for field in fields["access-control-request-headers"].split(", "))
            strange = await client.options(path, headers={**fields, "access-control-request-headers": "x-strange"})
            assert strange.status_code == 400
