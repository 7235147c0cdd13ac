"""What can be put to a fan-out: who it is, where its streams are, and how an event is given to it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.accounting import cpu_seconds, family, resident_kib
from benchmarks.tools import tool
from tests.support.ports import free_port

EVENT_BYTES = 200


class NotHad(Exception):
    """A peer that can't be had here; the text says why."""


@dataclass
class Server:
    """A running server; all processes below `roots` are what it costs."""

    name: str
    port: int
    path: str
    roots: list[int]
    publish: Callable[[str], Awaitable[None]]
    """Broadcasts this text to all streams."""
    ready: str = "\r\n\r\n"
    """What a stream's first bytes hold when it is open."""
    beside: list[int] = field(default_factory=list)
    """Processes that work for it and are accounted for by themselves."""

    def cpu(self) -> float:
        return cpu_seconds(pid for root in self.roots for pid in family(root))

    def cpu_beside(self) -> float:
        return cpu_seconds(pid for root in self.beside for pid in family(root))

    def resident(self) -> int:
        return resident_kib(pid for root in self.roots for pid in family(root))


def event(size: int = EVENT_BYTES) -> str:
    """`size` bytes of text that tell when it was made."""
    return f"@T={time.monotonic_ns()};".ljust(size, "x")


@asynccontextmanager
async def limit(build: Path) -> AsyncIterator[Server]:
    """The C loop of send()."""
    port = free_port()
    async with tool(str(build / "limit"), str(port)) as program:
        yield Server("limit", port, "/", [program.pid], program.tell)
