"""The processes of a run, and what is told of them from outside: by themselves, by the kernel, by the NATS server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import Running

Subscribed = dict[str, list[int]]
"""By the name of a client of NATS: how many subscriptions the server has for each of its connections."""


class Part:
    """A process that can be ended and started again on the same port. `port` is where its metrics are."""

    def __init__(
        self,
        name: str,
        make: Callable[[], AbstractAsyncContextManager[Any]],
        port: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`headers` say who asks for the metrics."""
        self.name = name
        self.port = port
        self._headers = headers
        self._make = make
        self._stack = AsyncExitStack()
        self.run: Running | None = None

    async def start(self) -> None:
        started = await self._stack.enter_async_context(self._make())
        self.run = started if isinstance(started, Running) else started.run

    def send(self, how: signal.Signals) -> None:
        """Raises AssertionError where it has ended by itself."""
        self._running().process.send_signal(how)

    async def end(self, how: signal.Signals) -> int:
        """Ends it; gives the exit code. Raises AssertionError where it has ended by itself."""
        code = await self._running().stop(how)
        await self._stack.aclose()
        return code

    async def aclose(self) -> None:
        await self._stack.aclose()

    @property
    def rss_mb(self) -> float:
        """Its memory; 0 where it is not there."""
        status = Path(f"/proc/{self._pid}/status")
        found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
        return int(found[1]) / 1024 if found else 0.0

    @property
    def files(self) -> int:
        """Sockets and other files that it has open; 0 where it is not there."""
        folder = f"/proc/{self._pid}/fd"
        return len(os.listdir(folder)) if os.path.exists(folder) else 0

    async def metrics(self, http: httpx.AsyncClient) -> Metrics:
        """Raises httpx.TransportError."""
        return Metrics((await http.get(f"http://127.0.0.1:{self.port}/metrics", headers=self._headers)).text)

    def _running(self) -> Running:
        assert self.run is not None
        code = self.run.process.returncode
        assert code is None, f"{self.name} ended by itself with {code}:\n" + "\n".join(self.run.output[-20:])
        return self.run

    @property
    def _pid(self) -> int:
        assert self.run is not None
        return self.run.process.pid


class Metrics:
    """What a service says of itself."""

    def __init__(self, text: str) -> None:
        self._text = text

    def has(self, name: str) -> bool:
        return re.search(rf"^tidegate_{name}[ {{]", self._text, re.M) is not None

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over those with `labels`. Raises AssertionError where there is none of that name."""
        found = re.findall(rf"^tidegate_{name}(?:\{{(.*)\}})? (\S+)$", self._text, re.M)
        if not found:
            raise AssertionError(f"no metric tidegate_{name}")
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(value) for told, value in found if all(each in told for each in wanted))


async def subscribed(http: httpx.AsyncClient, monitor_port: int) -> Subscribed:
    """What the NATS server on `monitor_port` says, inboxes included. Raises httpx.TransportError."""
    answer = await http.get(f"http://127.0.0.1:{monitor_port}/connz", params={"limit": 10_000})
    found: Subscribed = {}
    for connection in answer.json()["connections"]:
        found.setdefault(connection.get("name", ""), []).append(connection["subscriptions"])
    return {name: sorted(counts) for name, counts in found.items()}
