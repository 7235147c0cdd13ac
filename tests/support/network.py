"""Hosts of the tests' own, in network namespaces: what a proxy can't break, since the kernel answers for it.

Needs root and iproute2. Nothing of it is reachable from outside this machine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.claims import Claims

_networks = Claims("networks", range(256))


def _tag(number: int) -> str:
    """What the names of a network's bridge, hosts and ports begin with."""
    return f"tg{number:02x}"


class Network:
    """A bridge that this process is on (at `address`), and hosts on it by name."""

    def __init__(self) -> None:
        number = _networks.take(fits=lambda number: not Path("/sys/class/net", _tag(number)).exists())
        self._tag = _tag(number)
        self._net = f"198.18.{number}"  # RFC 2544: for tests of networks
        self.address = f"{self._net}.1"
        self._hosts: dict[str, int] = {}

    def address_of(self, host: str) -> str:
        return f"{self._net}.{self._hosts[host]}"

    def command(self, host: str) -> tuple[str, ...]:
        """What a command line starts with to run on `host`."""
        return ("ip", "netns", "exec", self._namespace(host))

    async def add(self, host: str) -> None:
        """A host with an address of its own."""
        number = self._hosts[host] = len(self._hosts) + 2
        space, port = self._namespace(host), self._port(host)
        await ip("netns", "add", space)
        await ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        await ip("link", "set", port, "master", self._tag, "up")
        await ip("-n", space, "addr", "add", f"{self._net}.{number}/24", "dev", "eth0")
        await ip("-n", space, "link", "set", "eth0", "up")
        await ip("-n", space, "link", "set", "lo", "up")

    async def unplug(self, host: str) -> None:
        """No packet reaches the host or comes from it; nobody is told."""
        await ip("link", "set", self._port(host), "nomaster")

    async def part(self, one: str, other: str) -> None:
        """No packet passes between the two any more; nobody is told."""
        for here, there in ((one, other), (other, one)):
            await ip("-n", self._namespace(here), "route", "add", "blackhole", f"{self.address_of(there)}/32")

    async def heal(self, one: str, other: str) -> None:
        """Undoes `part`."""
        for here, there in ((one, other), (other, one)):
            await ip("-n", self._namespace(here), "route", "del", "blackhole", f"{self.address_of(there)}/32")

    async def start(self) -> None:
        await ip("link", "add", self._tag, "type", "bridge")
        await ip("addr", "add", f"{self.address}/24", "dev", self._tag)
        await ip("link", "set", self._tag, "up")

    async def aclose(self) -> None:
        """Takes all of it away; processes on the hosts have to be gone."""
        for host in self._hosts:
            await ip("link", "del", self._port(host))
            await ip("netns", "del", self._namespace(host))
        await ip("link", "del", self._tag)

    def _namespace(self, host: str) -> str:
        return f"{self._tag}-{host}"

    def _port(self, host: str) -> str:
        return f"{self._tag}{host}"[:15]


async def ip(*arguments: str) -> None:
    """Runs iproute2's `ip`. Raises RuntimeError with what it said."""
    process = await asyncio.create_subprocess_exec("ip", *arguments, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {said.decode().strip()}")


@asynccontextmanager
async def network(*hosts: str) -> AsyncIterator[Network]:
    """A network with `hosts` (names of at most six letters and digits); skips the test where there can be none."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        if os.environ.get("TIDEGATE_REQUIRE_ALL"):
            raise AssertionError("a network of the test's own needs root and iproute2")
        pytest.skip("a network of the test's own needs root and iproute2")
    made = Network()
    await made.start()
    try:
        for host in hosts:
            await made.add(host)
        yield made
    finally:
        await made.aclose()
