"""Several gateway processes on one port, under a parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.workers import SPARE_SECONDS
from tests.support.bus import broker
from tests.support.gateway import Stream, open_stream
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, halt, service
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event

CLIENTS = 24


class Gateways:
    def __init__(self, port: int, own_ports: int, run: Running) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.own = [f"http://127.0.0.1:{own_ports + number}" for number in range(2)]
        self.run = run

    def pids(self) -> set[int]:
        """The workers that there are."""
        pid = self.run.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@asynccontextmanager
async def two_workers(nats_url: str, **more: str) -> AsyncIterator[Gateways]:
    port, own = free_port(), free_port(2)
    env = {
        "TIDEGATE_NATS_URL": nats_url,
        "TIDEGATE_WORKERS": "2",
        "TIDEGATE_WORKER_PORTS": str(own),
        "TIDEGATE_DRAIN_SECONDS": "2",
        **more,
    }
    async with service("gateway", port, env) as run:
        found = Gateways(port, own, run)
        await ready(found)
        yield found


async def ready(gateways: Gateways) -> None:
    """Both answer on their own ports."""
    async with httpx.AsyncClient() as http:

        async def answer() -> bool:
            try:
                return all([(await http.get(f"{url}/readyz")).status_code == 200 for url in gateways.own])
            except httpx.TransportError:
                return False

        await until(answer, "both workers are ready", 20)


async def active(url: str) -> int:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("tidegate_connections_active"))
    return int(float(line.rsplit(" ", 1)[1]))


async def joined(stack: AsyncExitStack, url: str, last: str | None = None) -> list[Stream]:
    headers = {"last-event-id": last} if last else None
    streams = [
        await stack.enter_async_context(open_stream(url, {"client_id": f"c{number}", "user_id": "u"}, headers))
        for number in range(CLIENTS)
    ]
    for stream in streams:
        await stream.connected()
    return streams


def number_of(pid: int) -> int:
    """Which worker it is."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(each for each in variables if each.startswith(b"TIDEGATE_WORKER=")).split(b"=")[1].split(b",")[0])


async def broadcast(bus: Bus, data: str) -> None:
    await EventPublisher(bus, History(bus)).durable("broadcast", Event("n", data), headers={})


@pytest.mark.timeout(90)
async def test_two_workers_share_the_connections_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), two_workers(server.url) as gateways, AsyncExitStack() as stack:
        streams = await joined(stack, gateways.url)
        shares = [await active(url) for url in gateways.own]
        assert sum(shares) == CLIENTS
        assert all(shares), "the kernel gave all of them to one"
        await broadcast(bus, "all")
        assert {(await stream.next()).data for stream in streams} == {"all"}
        async with running_publisher(server.url) as (api, _):
            assert (await api.get("/api/presence/users/u")).json()["connections"] == CLIENTS

        before = gateways.pids()
        os.kill(next(pid for pid in before if number_of(pid) == 0), signal.SIGKILL)
        await until(lambda: sum(stream.ended for stream in streams) == shares[0], "its clients are cut off")
        await until(lambda: len(gateways.pids() - before) == 1, "another is started")
        await ready(gateways)
        await broadcast(bus, "meanwhile")
        lived = next(stream for stream in streams if not stream.ended)
        assert (await lived.next()).data == "meanwhile"
        resumed = await joined(stack, gateways.url, lived.events[1].id)
        assert {(await stream.next()).data for stream in resumed} == {"meanwhile"}


async def test_a_second_signal_ends_a_stuck_worker_and_all_at_once(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), two_workers(server.url) as gateways:
        pids = gateways.pids()
        stuck = min(pids)
        await halt(stuck)
        gateways.run.process.send_signal(signal.SIGTERM)
        await until(lambda: len(gateways.pids()) == 1, "the other has ended")
        assert await gateways.run.stop(signal.SIGTERM, 5) != 0
        assert gateways.run.said("workers that do not end are killed")
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_a_worker_that_is_stuck_at_the_stop_is_killed_after_a_time(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), two_workers(server.url) as gateways:
        await halt(min(gateways.pids()))
        assert await gateways.run.stop(signal.SIGTERM, 2 + SPARE_SECONDS + 5) != 0


async def test_a_stop_drains_every_worker_and_leaves_none(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), two_workers(server.url) as gateways, AsyncExitStack() as stack:
        streams = await joined(stack, gateways.url)
        pids = gateways.pids()
        assert await gateways.run.stop(signal.SIGTERM) == 0
        for stream in streams:
            assert '"reason":"drain"' in (await stream.next("closing")).data
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_workers_whose_parent_is_killed_drain_and_go(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), two_workers(server.url) as gateways, AsyncExitStack() as stack:
        streams = await joined(stack, gateways.url)
        pids = gateways.pids()
        os.kill(gateways.run.process.pid, signal.SIGKILL)
        for stream in streams:
            assert '"reason":"drain"' in (await stream.next("closing")).data
        await until(lambda: not any(running(pid) for pid in pids), "the workers are gone", 20)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("env", "code", "says"),
    [
        ({"TIDEGATE_NATS_URL": "nats://127.0.0.1:1"}, 1, "no NATS server answers"),
        ({"TIDEGATE_MAX_CONNECTIONS": "none"}, 2, "TIDEGATE_MAX_CONNECTIONS"),
        ({"TIDEGATE_PORT": "0"}, 2, "a port that all workers share"),
    ],
)
async def test_what_keeps_workers_from_starting_is_said_once(env: dict[str, str], code: int, says: str) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"),
        env={**os.environ, "TIDEGATE_WORKERS": "3", "TIDEGATE_PORT": str(port), **env},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == code
    assert said.decode().count(says) == 1


async def test_workers_that_nats_refuses_for_long_end_together_and_their_parent_says_so(tmp_path: Path) -> None:
    """Started again one by one they would be refused for ever, and the parent would never get another password."""
    given = 'authorization {{ user: ann, password: "{}" }}'
    async with nats_server(tmp_path, config=given.format("old")) as nats:
        url = nats.url.replace("//", "//ann:old@")
        async with two_workers(url, TIDEGATE_NATS_REFUSED_SECONDS="2") as gateways:
            pids = gateways.pids()
            assert len(pids) == 2
            await nats.reload(given.format("new"))
            async with asyncio.timeout(30):
                assert await gateways.run.process.wait() == 3
            assert not any(map(running, pids))
            assert not gateways.run.said("is started again")


async def test_a_taken_port_is_said_before_any_worker_starts(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"),
            env={**os.environ, "TIDEGATE_WORKERS": "2", "TIDEGATE_PORT": str(server.port)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 2
        assert said.decode().count("can't be listened on") == 1


async def test_a_taken_port_of_a_worker_is_said_once_by_its_own_variable(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"),
            env={
                **os.environ,
                "TIDEGATE_NATS_URL": server.url,
                "TIDEGATE_WORKERS": "2",
                "TIDEGATE_PORT": str(free_port()),
                "TIDEGATE_WORKER_PORTS": str(server.port - 1),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(20):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.terminate()
        assert process.returncode == 2
        assert said.decode().count("can't be listened on") == 1
        assert "set TIDEGATE_WORKER_PORTS" in said.decode()
