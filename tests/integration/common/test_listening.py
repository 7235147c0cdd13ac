"""`TIDEGATE_HOST` means the same for one process and for several on one port (tests/unit/common/test_listening.py)."""

import itertools
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import running, service
from tests.support.streams import make_streams_for
from tests.support.waiting import until


async def answers(address: str, port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://{address}:{port}/healthz")).status_code == 200
        except httpx.TransportError:
            return False


@pytest.mark.parametrize(
    ("host", "workers", "reached"),
    [("::", 1, ["127.0.0.1", "[::1]"]), ("::", 2, ["127.0.0.1", "[::1]"]), ("[::1]", 2, ["[::1]"])],
)
async def test_a_host_is_the_same_addresses_however_many_workers_there_are(
    tmp_path: Path, host: str, workers: int, reached: list[str]
) -> None:
    """`::` was IPv6 alone with one worker and both kinds with two; `[::1]` did not start at all."""
    port, own = free_port(), free_port(2)
    async with nats_server(tmp_path) as server:
        env = {
            "TIDEGATE_NATS_URL": server.url,
            "TIDEGATE_HOST": host,
            "TIDEGATE_AUTH": "open",
            "TIDEGATE_PORT": str(port),
            "TIDEGATE_WORKERS": str(workers),
            "TIDEGATE_DRAIN_SECONDS": "1",
            **({"TIDEGATE_WORKER_PORTS": str(own)} if workers > 1 else {}),
        }
        await make_streams_for(env)
        async with running(sys.executable, "-m", "gateway", env=env) as run:
            ports = [port, *range(own, own + workers)] if workers > 1 else [port]

            async def ready() -> bool:
                assert run.process.returncode is None, "\n".join(run.output)
                return all([await answers(reached[0], each) for each in ports])

            await until(ready, "all listen", 30)
            for each, address in itertools.product(ports, ["127.0.0.1", "[::1]"]):
                assert await answers(address, each) == (address in reached), (each, address)
            assert await run.stop() == 0, "\n".join(run.output)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("host", "said"),
    [("[::1", "no address and no host name"), ("203.0.113.7", "cannot assign requested address")],
)
async def test_a_host_that_can_not_be_served_is_said(host: str, said: str, workers: str) -> None:
    env = {"TIDEGATE_HOST": host, "TIDEGATE_AUTH": "open", "TIDEGATE_PORT": "1200", "TIDEGATE_WORKERS": workers}
    async with running(sys.executable, "-m", "gateway", env=env) as run:
        assert await run.process.wait() == 2
        await run.stop()
        assert len(run.output) == 1, run.output
        assert said in run.output[0]
        assert "TIDEGATE_HOST" in run.output[0]


async def test_of_two_that_start_at_once_on_one_port_one_says_that_it_is_taken(tmp_path: Path) -> None:
    """Both found it free before they asked for NATS; the second one ended with a stack."""
    async with nats_server(tmp_path) as server:
        port = free_port()
        env = {"TIDEGATE_NATS_URL": server.url, "TIDEGATE_PORT": str(port)}
        async with service("publisher_api", port, env), running(sys.executable, "-m", "gateway", env=env) as late:
            assert await late.process.wait() == 2
            await late.stop()
            taken = f"gateway: 127.0.0.1:{port} can't be listened on (address already in use)"
            assert late.output == [f"{taken}: set TIDEGATE_PORT or TIDEGATE_HOST"]
