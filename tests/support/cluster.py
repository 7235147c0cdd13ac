"""A real NATS cluster of three servers, on this machine's loopback or on the hosts of a network of the tests' own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.support import least_rights
from tests.support.nats import NatsServer
from tests.support.network import Network
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.errors import BrokerUnavailable

NAMES = ("n1", "n2", "n3")

IMPATIENT = """
write_deadline: "1s"
ping_interval: "500ms"
ping_max: 2
"""
"""A server finds out within seconds, not minutes, that another is gone without a word."""


class Cluster:
    """Its servers by name; one that was stopped can be started again on its own store."""

    def __init__(self, data: Path, network: Network | None = None) -> None:
        """With `network`, which has a host for each of NAMES, each server runs on its host."""
        self._data = data
        self._network = network
        self._ports = {name: (free_port(), free_port()) for name in NAMES}
        self._stack = AsyncExitStack()
        self.servers: dict[str, NatsServer] = {}

    @property
    def url(self) -> str:
        """All servers, as a comma list."""
        return ",".join(self.url_of(name) for name in NAMES)

    def url_of(self, name: str) -> str:
        """One server alone."""
        return f"nats://{self._address(name)}:{self._ports[name][0]}"

    async def start(self, name: str) -> None:
        """Starts (again) one server."""
        port, route = self._ports[name]
        address, network = self._address(name), self._network
        routes = ",".join(f"nats://{self._address(other)}:{self._ports[other][1]}" for other in NAMES)
        config, store = self._data / f"{name}.conf", self._data / name
        command = [str(Path(sys.executable).with_name("nats-server")), "-c", str(config), "--name", name]
        if least_rights.ON:
            config.write_text(IMPATIENT + least_rights.configuration(store, port, host=address))
        else:
            config.write_text(IMPATIENT)
            command += ["-a", address, "-p", str(port), "-js", "-sd", str(store)]
        command += ["--cluster_name", "c", "--cluster", f"nats://{address}:{route}", "--routes", routes]
        prefix = network.command(name) if network is not None else ()
        run = await self._stack.enter_async_context(running(*prefix, *command, env=least_rights.passwords()))
        await until(lambda: run.said("Listening for client connections"), f"{name} listens")
        self.servers[name] = NatsServer(port, run)

    def _address(self, name: str) -> str:
        return self._network.address_of(name) if self._network is not None else "127.0.0.1"

    async def aclose(self) -> None:
        """Raises AssertionError if a user of deploy/nats.conf lacked a right."""
        await self._stack.aclose()
        if least_rights.ON:
            for server in self.servers.values():
                least_rights.check(server.run.output)


@asynccontextmanager
async def nats_cluster(data: Path, network: Network | None = None) -> AsyncIterator[Cluster]:
    """Three servers that have found each other and agreed on a leader of JetStream."""
    cluster = Cluster(data, network)
    try:
        for name in NAMES:
            await cluster.start(name)
        servers = cluster.servers.values()
        await until(
            lambda: any(server.run.said("JetStream cluster new metadata leader") for server in servers),
            "the cluster has a leader",
            30,
        )
        yield cluster
    finally:
        await cluster.aclose()


THREE = StreamLimits(replicas=3)


async def made(bus: Bus, limits: StreamLimits = THREE) -> None:
    """The streams, with three replicas: the cluster may need a moment before it can place them."""

    async def ready() -> bool:
        try:
            await ensure_streams(bus, limits, update=True)
        except BrokerUnavailable:
            return False
        return True

    await until(ready, "the streams are made", 30)


async def leader(bus: Bus, stream: str = "TG_EVENTS") -> str:
    """Name of the server that leads `stream`."""
    info = await bus.jetstream.stream_info(stream)
    assert info.cluster is not None
    assert info.cluster.leader
    return str(info.cluster.leader)
