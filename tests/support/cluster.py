"""A real NATS cluster of three servers on this machine's loopback."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.support.nats import NatsServer
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.waiting import until


class Cluster:
    """Its servers by name; one that was stopped can be started again on its own store."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._ports = {name: (free_port(), free_port()) for name in ("n1", "n2", "n3")}
        self._stack = AsyncExitStack()
        self.servers: dict[str, NatsServer] = {}

    @property
    def url(self) -> str:
        """All servers, as a comma list."""
        return ",".join(f"nats://127.0.0.1:{port}" for port, _ in self._ports.values())

    async def start(self, name: str) -> None:
        """Starts (again) one server."""
        port, route = self._ports[name]
        binary = str(Path(sys.executable).with_name("nats-server"))
        routes = ",".join(f"nats://127.0.0.1:{other}" for _, other in self._ports.values())
        command = [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(self._data / name), "--name", name]
        command += ["--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{route}", "--routes", routes]
        run = await self._stack.enter_async_context(running(*command))
        await until(lambda: run.said("Listening for client connections"), f"{name} listens")
        self.servers[name] = NatsServer(port, run)

    async def aclose(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def nats_cluster(data: Path) -> AsyncIterator[Cluster]:
    """Three servers that have found each other and agreed on a leader of JetStream."""
    cluster = Cluster(data)
    try:
        for name in ("n1", "n2", "n3"):
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
