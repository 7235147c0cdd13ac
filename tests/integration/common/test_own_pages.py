"""A page of another site changes nothing, by no service's port; and what is answered is what it says it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.publisher import running_publisher
from tidegate_common.bus.connection import Bus

LISTED = "https://app.example"
FOREIGN: list[Mapping[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:1"},
    {"sec-fetch-site": "cross-site"},
    {"origin": "https://evil.example", "authorization": "Basic YTpi"},
]
"""What browsers say of pages that are not ours. `null` is a sandboxed frame, or a file."""

EVENT = {"client_id": "ann", "event_type": "n", "data": 1}
SEND = "/api/sse/send"


class Call(NamedTuple):
    """Something that changes what is, or costs; `path` of one service."""

    path: str
    body: object = None
    method: str = "POST"


GATEWAY = [
    Call("/api/sse", {"client_id": "ann"}),
    Call("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    Call("/nothing", {}),
]
PUBLISHER = [
    Call(SEND, EVENT),
    Call("/api/sse/broadcast", {"event_type": "n", "data": 1}),
    Call("/api/ai/chat", {"prompt": "x", "client_id": "ann"}),
    Call("/api/ai/jobs/none", method="DELETE"),
    Call("/api/presence/clients/ann", method="DELETE"),
]


class Scene(NamedTuple):
    bus: Bus
    gateways: list[str]
    publisher: httpx.AsyncClient
    worker: str
    metrics: str
    """The worker's port for them."""

    @property
    def calls(self) -> list[tuple[str, Call]]:
        """All of them, each with its service's address."""
        api = str(self.publisher.base_url)
        found = [(url, call) for url in self.gateways for call in GATEWAY]
        found += [(api, call) for call in PUBLISHER]
        return [*found, (self.worker, Call("/nothing", {}))]


@asynccontextmanager
async def everything(data: Path) -> AsyncIterator[Scene]:
    """Both kinds of gateway, publisher-api and a worker, which list one origin."""
    async with AsyncExitStack() as exits:
        server, bus = await exits.enter_async_context(broker(data))
        gateways = [
            await exits.enter_async_context(running_gateway(server.url, cors_origins=(LISTED,), streams=streams))
            for streams in ("slim", "plain")
        ]
        publisher, _ = await exits.enter_async_context(running_publisher(server.url, cors_origins=(LISTED,)))
        port = free_port()
        metrics_port = free_port()
        env = {
            "TIDEGATE_NATS_URL": server.url,
            "TIDEGATE_AI_BACKEND": "scripted",
            "TIDEGATE_CORS_ORIGINS": LISTED,
            "TIDEGATE_METRICS_PORT": str(metrics_port),
        }
        await exits.enter_async_context(service("ai_worker", port, env))
        yield Scene(
            bus,
            [running.url for running in gateways],
            publisher,
            f"http://127.0.0.1:{port}",
            f"http://127.0.0.1:{metrics_port}",
        )


async def test_a_page_of_another_site_changes_nothing(tmp_path: Path) -> None:
    async with everything(tmp_path) as scene, httpx.AsyncClient() as client:
        for url, call in scene.calls:
            for fields in FOREIGN:
                answer = await client.request(call.method, url + call.path, json=call.body, headers=fields)
                assert answer.status_code == 403, (call, fields, answer.text)
                assert "TIDEGATE_CORS_ORIGINS" in answer.text
                assert "access-control-allow-origin" not in answer.headers
                shape = '"error":' if call.path.startswith("/v1") else "urn:tidegate:problem:forbidden"
                assert shape in answer.text
        assert (await scene.bus.jetstream.stream_info("TG_JOBS")).state.messages == 0
        assert (await scene.bus.jetstream.stream_info("TG_EVENTS")).state.last_seq == 0


async def test_own_pages_listed_ones_and_programs_are_served(tmp_path: Path) -> None:
    """What says nothing of a page is no browser's; a bearer token is the page's own, and CORS has let it through."""
    async with everything(tmp_path) as scene, httpx.AsyncClient() as client:
        url = str(scene.publisher.base_url)
        served: list[Mapping[str, str]] = [
            {},
            {"origin": url},
            {"origin": LISTED},
            {"origin": "http://behind.example", "sec-fetch-site": "same-origin"},
            {"origin": "https://elsewhere.example", "authorization": "Bearer any"},
        ]
        for fields in served:
            answer = await client.post(url + SEND, json=EVENT, headers=fields)
            assert answer.status_code == 202, (fields, answer.text)
        for gateway in scene.gateways:
            for fields in ({}, {"origin": gateway}, {"origin": LISTED}):
                async with open_stream(gateway, headers=fields, body={"client_id": "ann"}) as stream:
                    await stream.connected()


async def test_a_page_of_another_site_can_read_nothing(tmp_path: Path) -> None:
    """Its browser opens a stream for it, and then keeps it from the page: nothing says that it may have it."""
    async with everything(tmp_path) as scene:
        for gateway in scene.gateways:
            async with open_stream(gateway, headers={"origin": "https://evil.example"}) as stream:
                await stream.connected()
                assert "access-control-allow-origin" not in stream.response.headers


async def test_nothing_that_is_answered_is_taken_for_something_else(tmp_path: Path) -> None:
    """Events, answers and records hold what others wrote: a browser is not to find a page or a script in them."""
    async with everything(tmp_path) as scene, httpx.AsyncClient() as client:
        for gateway in scene.gateways:
            async with open_stream(gateway) as stream:
                assert stream.response.headers.get_list("x-content-type-options") == ["nosniff"]
        api = str(scene.publisher.base_url)
        asked = [(scene.metrics, "/metrics"), (scene.metrics, "/nothing")]
        asked += [(each, path) for each in (*scene.gateways, api, scene.worker) for path in ("/healthz", "/nothing")]
        asked += [(each, "/") for each in scene.gateways] + [(api, "/docs"), (api, "/openapi.json")]
        asked += [(scene.gateways[0], "/api/sse?client_id=%00"), (api, "/healthz?" + "x" * 40_000)]
        for url, path in asked:
            answer = await client.get(url + path)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], (url, path)
        sent = (await client.post(api + SEND, json=EVENT)).headers
        assert sent["content-type"] == "application/json"
        assert sent["x-content-type-options"] == "nosniff"
        assert json.loads((await client.get(api + "/nothing")).text)["status"] == 404
