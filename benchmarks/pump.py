"""Writes durable events for clients c0, c1, … straight into the stream, as a service with its own NATS connection does.

`python -m benchmarks.pump NATS_URL TARGETS COUNT RATE`: RATE events a second, or 0: as fast as the stream confirms
them. Prints the seconds that it took. Each event's data tells when it was made (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from benchmarks.server import event
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event
from tidegate_common.contract.subjects import Subjects

UNCONFIRMED = 512
"""Events under way at most."""


async def pump(url: str, targets: int, count: int, rate: float) -> float:
    """Seconds until the last event was confirmed. Raises BrokerUnavailable."""
    async with connect(url, Subjects.of("tg"), "pump") as bus:
        publisher = EventPublisher(bus, History(bus), 10)
        room = asyncio.Semaphore(UNCONFIRMED)

        async def one(target: int) -> None:
            try:
                await publisher.durable(f"client.c{target}", Event("tick", event()), headers={})
            finally:
                room.release()

        await room.acquire()
        await one(0)  # asks for the stream's epoch
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(1, count):
                late = time.monotonic() - start - number / rate if rate else 0.0
                if late < 0:
                    await asyncio.sleep(-late)
                await room.acquire()
                group.create_task(one(number % targets))
        return time.monotonic() - start


if __name__ == "__main__":
    print(uvloop.run(pump(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
