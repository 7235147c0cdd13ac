"""What a scenario acts on: NATS, two gateways and publisher-api as real processes, proxies, clients, publishers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from tests.stress.client import StressClient
from tests.stress.identity import LONG_SECONDS, SHIPPED_SECONDS, client_token, service_headers, signed
from tests.stress.leaks import Leaks
from tests.stress.ledger import Ledger
from tests.stress.listener import Listener, Listening
from tests.stress.load import Load
from tests.stress.parts import Metrics, Part
from tests.stress.proxy import Cut, FaultProxy, Link, fault_proxy
from tests.stress.shipped import NodeClient, PythonClient, has_node, node_clients
from tests.stress.sieve import Drops
from tests.support.nats import nats_server
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.waiting import until

SETTLE_SECONDS = 40.0
"""How long all clients may take, after the last fault, to have everything."""

ROOMS = tuple(f"room.{house}.{number}" for house in range(2) for number in range(4))
WIDE = ("room.0.*", "room.*.0", "room.*.1")
"""They overlap, and none covers another, which a gateway would leave out."""
WITHIN = tuple(room for room in ROOMS if room[5] == "0" or room[-1] in "01")
"""What they cover."""

DRAIN_SECONDS = 4.0

TICKETS_OF = 4
"""One in so many has a ticket, where services ask who somebody is."""

NODE_CLIENTS = 4
PYTHON_SHARE = 0.1
"""Of the clients where shipped ones are among them."""

Topics = Callable[[int], tuple[tuple[str, ...], tuple[str, ...]]]
"""What the client of that number listens to beside the load's topics: topics, and what their wildcards cover."""


class World:
    """The parts. `problems` holds what a scenario found wrong beside the accounts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.problems: list[str] = []
        self.clients: list[Listener] = []
        self.nats: Part
        self.nats_url = ""
        """Past all proxies."""
        self.feed: FaultProxy
        """Between the gateways and NATS."""
        self.back: FaultProxy
        """Between publisher-api and NATS."""
        self.drops = Drops()
        """What does not come through `feed`, where the scenario has that."""
        self.publisher: Part
        self.gateways: list[Part] = []
        self.proxies: list[FaultProxy] = []
        """Before each gateway."""
        self.load: Load
        self.asks = False
        """Whether the services ask who somebody is."""
        self.token_seconds = LONG_SECONDS
        self.leaks: Leaks
        self.live: list[float] = []
        """Seconds from the POST to clients that nothing happened to, where a scenario watches them."""
        self._exits = AsyncExitStack()

    @property
    def lean(self) -> list[StressClient]:
        """The clients that are not shipped ones."""
        return [client for client in self.clients if isinstance(client, StressClient)]

    def any_gateway(self) -> int:
        return random.choice(self.proxies).port

    def watch(self, client: Listener) -> None:
        """Notes how long its events take from now on."""
        client.on_number = lambda number: self.live.append(time.perf_counter() - self.load.sent_at[number])

    def link_of(self, client: Listener) -> Link | None:
        """The client's present connection."""
        links = (proxy.link_for(client.name) for proxy in self.proxies)
        return next((link for link in links if link is not None), None)

    def cut(self, client: Listener, how: Cut) -> None:
        """Breaks the client's present connection, where it has one."""
        link = self.link_of(client)
        if link is not None:
            link.end(how)

    async def metrics(self) -> list[Metrics]:
        """Of each gateway. Raises httpx.TransportError where one is away."""
        async with httpx.AsyncClient() as http:
            return [await part.metrics(http) for part in self.gateways]

    async def join(
        self, count: int, share: float | None = None, topics: Topics | None = None, *, shipped: bool = False
    ) -> None:
        """Starts clients c0, c1, …, and returns when all are connected.

        With `share`, so much of them stays with the first gateway, the rest with the other. With `shipped`, some of
        them are clients that Tidegate ships.
        """
        for number in range(count):
            port = self.any_gateway
            if share is not None:
                port = lambda home=self.proxies[number >= share * count].port: home  # type: ignore[misc]  # noqa: E731
            kind = _kind(number, count) if shipped else StressClient
            asked = _listening(number, count, topics(number) if topics is not None else ((), ()))
            client = kind(f"c{number}", asked, self.ledger, port)
            if self.asks:
                self._give_token(client, by_ticket=number % TICKETS_OF == 1)
            self.clients.append(client)
        for client in self.clients:
            client.start()
        inside = [client for client in self.clients if isinstance(client, NodeClient)]
        if inside:
            await self._exits.enter_async_context(node_clients(inside))
        await self.all_connected(60)
        self.leaks.come()

    def _give_token(self, client: Listener, *, by_ticket: bool) -> None:
        """The client says who it is, with another token each time."""
        if isinstance(client, NodeClient):
            client.signed = signed(client.name, client.listening)
            return
        assert isinstance(client, StressClient | PythonClient)
        lean = isinstance(client, StressClient)
        client.token = lambda: client_token(
            client.name, client.listening, self.token_seconds if lean else max(self.token_seconds, SHIPPED_SECONDS)
        )
        if by_ticket and isinstance(client, StressClient):
            wish = {"client_id": client.name, "topic": list(client.listening.topics)}
            client.ticket = lambda token: self.load.ticket(token, wish)

    async def all_connected(self, seconds: float) -> None:
        """Returns when no client is away."""
        await until(lambda: all(client.connected for client in self.clients), "all clients are connected", seconds)

    async def all_complete(self, seconds: float) -> None:
        """Returns when every client has all that was accepted. Raises AssertionError."""
        await until(lambda: all(client.complete for client in self.clients), "all have everything", seconds)

    async def settle(self) -> None:
        """Stops the publishers; returns when every client has all, or when it had time enough."""
        await self.load.stop()
        await self.load.broadcast()
        try:
            await self.all_complete(SETTLE_SECONDS)
        except AssertionError:
            late = [client.name for client in self.clients if not client.complete]
            self.problems.append(f"{len(late)} clients not up to date in {SETTLE_SECONDS:.0f} s: {', '.join(late[:5])}")

    async def leave(self) -> None:
        """All clients go; nothing of them may stay in the services."""
        for client in self.clients:
            await client.stop()
        await self.aclose()
        await self.load.aclose()
        self.problems += await self.leaks.found(len(self.clients))

    async def aclose(self) -> None:
        """Ends the clients that run in a process of their own."""
        await self._exits.aclose()


def users(clients: int) -> int:
    """Users have two clients each."""
    return max(1, clients // 2)


def _kind(number: int, count: int) -> type[Listener]:
    """The last clients are shipped ones."""
    if number >= count - NODE_CLIENTS and has_node():
        return NodeClient
    return PythonClient if number >= count - NODE_CLIENTS - count * PYTHON_SHARE else StressClient


def _listening(number: int, count: int, more: tuple[tuple[str, ...], tuple[str, ...]]) -> Listening:
    user = f"u{number % users(count)}@example.org"
    topics, covered = (ROOMS[number % len(ROOMS)], *more[0]), more[1]
    if number % 8 == 0:  # each event once all the same
        topics, covered = (*topics, *WIDE), (*covered, *WITHIN)
    return Listening(user, topics, covered)


@asynccontextmanager
async def world(
    data: Path, seed: int, clients: int, rate: float, env: dict[str, str], drops: bool, receive_bytes: int
) -> AsyncIterator[World]:
    """All parts running, no client yet. `drops`, `receive_bytes`: as a scenario has them."""
    made = World(seed)
    made.asks = env.get("TIDEGATE_AUTH") == "token"
    headers = service_headers() if made.asks else None
    async with AsyncExitStack() as stack:

        async def run(part: Part) -> Part:
            stack.push_async_callback(part.aclose)
            await part.start()
            return part

        nats_port, monitor_port = free_port(), free_port()
        made.nats_url = f"nats://127.0.0.1:{nats_port}"
        made.nats = await run(Part("NATS", lambda: nats_server(data / "nats", nats_port, monitor_port=monitor_port)))
        made.feed = await stack.enter_async_context(fault_proxy(nats_port))
        made.feed.sieve = made.drops.sieve if drops else None
        made.back = await stack.enter_async_context(fault_proxy(nats_port))
        common = {"TIDEGATE_DRAIN_SECONDS": str(DRAIN_SECONDS), "TIDEGATE_MAX_CONNECTIONS_PER_IP": "0", **env}

        def part(module: str, through: FaultProxy) -> Part:
            port = free_port()
            given = {**common, "TIDEGATE_NATS_URL": f"nats://127.0.0.1:{through.port}"}
            return Part(module, lambda: service(module, port, given), port, headers)

        made.publisher = await run(part("publisher_api", made.back))
        for _ in range(2):
            made.gateways.append(await run(part("gateway", made.feed)))
            made.proxies.append(await stack.enter_async_context(fault_proxy(made.gateways[-1].port)))
            made.proxies[-1].receive_bytes = receive_bytes
        made.leaks = Leaks([made.publisher, *made.gateways], made.gateways, monitor_port)
        await made.leaks.look()
        url = f"http://127.0.0.1:{made.publisher.port}"
        made.load = Load(made.ledger, url, seed, clients, users(clients), ROOMS, rate, headers)
        stack.push_async_callback(made.load.aclose)
        try:
            yield made
        finally:
            await asyncio.gather(*(client.stop() for client in made.clients), return_exceptions=True)
            await made.aclose()
