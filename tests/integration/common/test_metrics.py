"""Who may read the metrics of a service, and where."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.bus import broker
from tests.support.identity import SECRET, bearer, token
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.waiting import until

SERVICES = ("gateway", "publisher_api", "ai_worker")
ADMIN = bearer(token("ann", admin=["metrics"]))


def environment(nats_url: str, **more: str) -> dict[str, str]:
    return {
        "TIDEGATE_NATS_URL": nats_url,
        "TIDEGATE_AI_BACKEND": "scripted",
        "TIDEGATE_AUTH": "token",
        "TIDEGATE_AUTH_SECRET": SECRET,
        **more,
    }


@pytest.mark.parametrize("module", SERVICES)
async def test_metrics_need_a_right_of_their_own(module: str, tmp_path: Path) -> None:
    async with broker(tmp_path) as (nats, _):
        port = free_port()
        async with (
            service(module, port, environment(nats.url)),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            assert (await client.get("/metrics")).status_code == 401
            others = token("ann", subscribe=["topic:>"], admin=["presence", "kick", "dead", "revoke", "events", "ops"])
            refused = await client.get("/metrics", headers=bearer(others))
            assert (refused.status_code, refused.json()["needed"]) == (403, "admin metrics")
            found = await client.get("/metrics", headers=ADMIN)
            assert found.status_code == 200
            assert 'limit="connects"' in found.text


@pytest.mark.parametrize("module", SERVICES)
async def test_metrics_on_a_port_of_their_own_are_nowhere_else(module: str, tmp_path: Path) -> None:
    async with broker(tmp_path) as (nats, _), httpx.AsyncClient() as client:
        port, own = free_port(), free_port()
        env = environment(nats.url, TIDEGATE_METRICS_PORT=str(own))
        async with service(module, port, env) as running:
            there = f"http://127.0.0.1:{own}"
            assert (await client.get(f"http://127.0.0.1:{port}/metrics", headers=ADMIN)).status_code == 404
            assert "tidegate_limited_total" in (await client.get(f"{there}/metrics")).text
            for path in ("/", "/healthz", "/api/sse", "/metrics/more"):
                assert (await client.get(f"{there}{path}")).status_code == 404
            rebound = await client.get(f"{there}/metrics", headers={"Host": "evil.example"})
            assert rebound.status_code == 421
            assert await running.stop() == 0


async def test_each_worker_has_a_port_for_its_metrics(tmp_path: Path) -> None:
    async with broker(tmp_path) as (nats, _), httpx.AsyncClient() as client:
        own = free_port(2)
        env = environment(nats.url, TIDEGATE_METRICS_PORT=str(own), TIDEGATE_WORKERS="2")
        async with service("gateway", free_port(), env):

            async def both() -> bool:
                try:
                    found = [await client.get(f"http://127.0.0.1:{own + n}/metrics") for n in range(2)]
                except httpx.TransportError:
                    return False
                return all(each.status_code == 200 for each in found)

            await until(both, "both workers have their metrics", 20)


async def test_the_two_ports_are_not_one(tmp_path: Path) -> None:
    port = str(free_port())
    async with broker(tmp_path) as (nats, _):
        env = environment(nats.url, TIDEGATE_METRICS_PORT=port)
        with pytest.raises(AssertionError, match="TIDEGATE_METRICS_PORT: another port than TIDEGATE_PORT"):
            async with service("ai_worker", int(port), env):
                pass
