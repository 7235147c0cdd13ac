"""What a scenario acts on: NATS, two gateways and publisher-api as real processes, proxies, clients, publishers."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.stress.client import StressClient
from tests.stress.ledger import Ledger
from tests.stress.load import Load
from tests.stress.proxy import Cut, FaultProxy, fault_proxy
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, service
from tests.support.waiting import until

SETTLE_SECONDS = 40.0
"""How long all clients may take, after the last fault, to have everything."""


class Part:
    """A process that can be ended and started again on the same port."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._make = make
        self._stack = AsyncExitStack()
        self.run: Running | None = None

    async def start(self) -> None:
        started = await self._stack.enter_async_context(self._make())
        self.run = started if isinstance(started, Running) else started.run

    async def end(self, how: signal.Signals) -> int:
        """Ends it; gives the exit code."""
        assert self.run is not None
        code = await self.run.stop(how)
        await self._stack.aclose()
        return code

    async def aclose(self) -> None:
        await self._stack.aclose()

    @property
    def rss_mb(self) -> float:
        assert self.run is not None
        status = Path(f"/proc/{self.run.process.pid}/status")
        found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
        return int(found[1]) / 1024 if found else 0.0


class World:
    """The parts. `problems` holds what a scenario found wrong beside the accounts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.problems: list[str] = []
        self.clients: list[StressClient] = []
        self.nats: Part
        self.feed: FaultProxy
        """Between the gateways and NATS."""
        self.back: FaultProxy
        """Between publisher-api and NATS."""
        self.gateways: list[Part] = []
        self.gateway_ports: list[int] = []
        self.proxies: list[FaultProxy] = []
        """Before each gateway."""
        self.load: Load
        self.rss_before: list[float] = []
        self.tasks_before = 0.0
        """Tasks of a gateway that nobody has connected to yet."""
        self.live: list[float] = []
        """Seconds from the POST to clients that nothing happened to, where a scenario watches them."""

    def any_gateway(self) -> int:
        return random.choice(self.proxies).port

    def watch(self, client: StressClient) -> None:
        """Notes how long its events take from now on."""
        client.on_number = lambda number: self.live.append(time.perf_counter() - self.load.sent_at[number])

    def cut(self, client: StressClient, how: Cut) -> None:
        """Breaks the client's present connection, where it has one."""
        port = client.local_port
        for proxy in self.proxies:
            link = proxy.link_of(port) if port else None
            if link is not None:
                link.end(how)

    async def join(self, count: int, share: float | None = None) -> None:
        """Starts clients c0, c1, …, and returns when all are connected.

        With `share`, so much of them stays with the first gateway, the rest with the other.
        """
        for number in range(count):
            room = number % ROOMS
            query = [("user_id", f"u{number % users(count)}@example.org"), ("topic", f"room.{room}")]
            targets = [f"client:c{number}", f"user:u{number % users(count)}@example.org", "all"]
            rooms = [room]
            if number % 8 == 0:  # a wildcard that overlaps: each event once all the same
                query.append(("topic", "room.*"))
                rooms = list(range(ROOMS))
            targets += [f"topic:room.{each}" for each in rooms]
            client = StressClient(f"c{number}", query, tuple(targets), self.ledger, self.any_gateway)
            if share is not None:
                home = self.proxies[number >= share * count].port
                client.port = lambda home=home: home  # type: ignore[misc]
            self.clients.append(client)
            client.start()
        await self.all_connected(60)
        self.rss_before = [part.rss_mb for part in self.gateways]

    async def all_connected(self, seconds: float) -> None:
        """Returns when no client is away."""
        await until(lambda: all(client.connected for client in self.clients), "all clients are connected", seconds)

    async def settle(self) -> None:
        """Stops the publishers; returns when every client has all, or when it had time enough."""
        await self.load.stop()
        await self.load.broadcast()
        try:
            await until(lambda: all(client.complete for client in self.clients), "all have everything", SETTLE_SECONDS)
        except AssertionError:
            late = [client.name for client in self.clients if not client.complete]
            self.problems.append(f"{len(late)} clients not up to date in {SETTLE_SECONDS:.0f} s: {', '.join(late[:5])}")

    async def leave(self) -> None:
        """All clients go; nothing of them may stay in the gateways."""
        for client in self.clients:
            await client.stop()
        async with httpx.AsyncClient() as http:
            for port in self.gateway_ports:

                async def empty(port: int = port) -> bool:
                    text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
                    none = all(
                        _metric(text, f"tidegate_{name}_active") == 0 for name in ("connections", "subscriptions")
                    )
                    return none and _metric(text, "tidegate_tasks_active") <= self.tasks_before + SPARE_TASKS

                try:
                    await until(empty, "no connection, no subscription and no task is left", 15)
                except (AssertionError, httpx.TransportError) as error:
                    self.problems.append(f"gateway on {port}: {error}")
        for part, before in zip(self.gateways, self.rss_before, strict=True):
            if part.rss_mb > before + LEAK_MB + len(self.clients) * LEAK_KB_PER_CLIENT / 1024:
                self.problems.append(f"a gateway's memory went from {before:.0f} to {part.rss_mb:.0f} MB")


ROOMS = 8

DRAIN_SECONDS = 4.0

LEAK_MB = 32.0
"""What a gateway may have grown by since all its clients had come: buffers and windows are bounded."""

LEAK_KB_PER_CLIENT = 8.0
"""And for each client: all may be coming back at once, and the allocator keeps what that took at its peak."""

SPARE_TASKS = 3
"""Of requests for metrics, and of what is being looked at just then."""


def users(clients: int) -> int:
    """Users have two clients each."""
    return max(1, clients // 2)


def _metric(text: str, name: str) -> float:
    found = re.search(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M)
    if found is None:
        raise AssertionError(f"no metric {name}")
    return float(found[1])


@asynccontextmanager
async def world(data: Path, seed: int, clients: int, rate: float, env: dict[str, str]) -> AsyncIterator[World]:
    """All parts running, no client yet."""
    made = World(seed)
    async with AsyncExitStack() as stack:
        nats_port = free_port()
        made.nats = Part(lambda: nats_server(data / "nats", nats_port))
        stack.push_async_callback(made.nats.aclose)
        await made.nats.start()
        made.feed = await stack.enter_async_context(fault_proxy(nats_port))
        made.back = await stack.enter_async_context(fault_proxy(nats_port))
        common = {"TIDEGATE_DRAIN_SECONDS": str(DRAIN_SECONDS), "TIDEGATE_MAX_CONNECTIONS_PER_IP": "0", **env}
        publisher_port = free_port()
        publisher = Part(
            lambda: service(
                "publisher_api", publisher_port, {**common, "TIDEGATE_NATS_URL": f"nats://127.0.0.1:{made.back.port}"}
            )
        )
        stack.push_async_callback(publisher.aclose)
        await publisher.start()
        fed = {**common, "TIDEGATE_NATS_URL": f"nats://127.0.0.1:{made.feed.port}"}
        for _ in range(2):
            port = free_port()
            part = Part(lambda port=port: service("gateway", port, fed))  # type: ignore[misc]
            stack.push_async_callback(part.aclose)
            await part.start()
            made.gateways.append(part)
            made.gateway_ports.append(port)
            made.proxies.append(await stack.enter_async_context(fault_proxy(port)))
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{made.gateway_ports[0]}/metrics")).text
        made.tasks_before = _metric(text, "tidegate_tasks_active")
        url = f"http://127.0.0.1:{publisher_port}"
        made.load = Load(made.ledger, url, seed, clients, users(clients), ROOMS, rate)
        stack.push_async_callback(made.load.aclose)
        try:
            yield made
        finally:
            await asyncio.gather(*(client.stop() for client in made.clients), return_exceptions=True)
