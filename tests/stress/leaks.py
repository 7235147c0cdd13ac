"""What must not stay behind when all clients have gone: connections, subscriptions, tasks, open files, memory."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from tests.stress.parts import Part, Subscribed, subscribed
from tests.support.waiting import until

SPARE_TASKS = 3
"""Of requests for metrics, and of what is being looked at just then."""

SPARE_FILES = 4
"""Of requests that are just being answered."""

LEAK_MB = 32.0
"""What a process may have grown by since all clients had come: buffers and windows are bounded."""

LEAK_KB_PER_CLIENT = 8.0
"""And for each client: all may be coming back at once, and the allocator keeps what that took at its peak."""

GONE_SECONDS = 15.0


class Leaks:
    """Compares processes with what they were. `gateways` are among `parts`; NATS tells at `monitor_port`."""

    def __init__(self, parts: Sequence[Part], gateways: Sequence[Part], monitor_port: int) -> None:
        self._parts = parts
        self._gateways = gateways
        self._monitor_port = monitor_port
        self._subscribed: Subscribed = {}
        self._tasks: dict[str, float] = {}
        self._files: dict[Part, int] = {}
        self._memory: dict[Part, float] = {}

    async def look(self) -> None:
        """All parts are there, and no client yet."""
        async with httpx.AsyncClient() as http:
            self._subscribed = await self._settled(http)
            for part in self._parts:
                told = await part.metrics(http)
                if told.has("tasks_active"):
                    self._tasks[part.name] = told("tasks_active")
                self._files[part] = part.files
                self._memory[part] = part.rss_mb

    def memory_of(self, part: Part) -> float:
        return self._memory[part]

    def come(self) -> None:
        """All clients are there: what that took is not held against a process."""
        self._memory = {part: part.rss_mb for part in self._parts}

    async def found(self, clients: int) -> list[str]:
        """What is wrong, after `clients` have gone."""
        problems = []
        async with httpx.AsyncClient() as http:
            for part in self._parts:
                problems += await self._left_in(part, http)
            problems += await self._left_at_nats(http)
        for part in self._parts:
            now, before = part.rss_mb, self._memory[part]
            if now > before + LEAK_MB + clients * LEAK_KB_PER_CLIENT / 1024:
                problems.append(f"the memory of {part.name} went from {before:.0f} to {now:.0f} MB")
        return problems

    async def _settled(self, http: httpx.AsyncClient) -> Subscribed:
        """Processes subscribe to the last that they need just after they are ready: alike are those of one kind."""
        found: Subscribed = {}

        async def alike() -> bool:
            nonlocal found
            found = await subscribed(http, self._monitor_port)
            return all(len(set(counts)) == 1 for counts in found.values())

        await until(alike, "services of one kind have as many subscriptions as each other", GONE_SECONDS)
        return found

    async def _left_in(self, part: Part, http: httpx.AsyncClient) -> list[str]:
        seen = ""

        async def empty() -> bool:
            nonlocal seen
            told = await part.metrics(http)
            left: dict[str, float] = {"files": part.files - self._files[part] - SPARE_FILES}
            if part in self._gateways:
                left |= {name: told(f"{name}_active") for name in ("connections", "subscriptions")}
            if part.name in self._tasks:
                left["tasks"] = told("tasks_active") - self._tasks[part.name] - SPARE_TASKS
            seen = ", ".join(f"{count:.0f} {name}" for name, count in left.items() if count > 0)
            return not seen

        try:
            await until(empty, "nothing is left", GONE_SECONDS)
        except (AssertionError, httpx.TransportError) as error:
            return [f"{part.name} on {part.port}: {seen} too many are left: {error}"]
        return []

    async def _left_at_nats(self, http: httpx.AsyncClient) -> list[str]:
        now: Subscribed = {}

        async def same() -> bool:
            nonlocal now
            now = await subscribed(http, self._monitor_port)
            return now == self._subscribed

        try:
            await until(same, "the NATS server has the subscriptions that it had", GONE_SECONDS)
        except AssertionError:
            return [f"the NATS server has subscriptions {now}, not {self._subscribed} as before"]
        return []
