"""One time limit for many connections, without a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadlines:
    """Connections that have `seconds` from their start.

    All have the same time, so that the order of starting is the order of being due: a dict and one timer of the loop
    do for all of them, and a start and a stop cost a dict's insertion and removal.
    """

    def __init__(self, seconds: float, late: Callable[[asyncio.Transport], object]) -> None:
        """`late` is called, once, with each that was not stopped in time."""
        self.seconds = seconds
        self._late = late
        self._due: dict[asyncio.Transport, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def start(self, transport: asyncio.Transport) -> None:
        """Begins the time of `transport`. If it runs already, it goes on."""
        if transport not in self._due:
            loop = asyncio.get_running_loop()
            self._due[transport] = loop.time() + self.seconds
            if self._timer is None:
                self._timer = loop.call_later(self.seconds, self._look)

    def restart(self, transport: asyncio.Transport) -> None:
        """Begins the time of `transport` anew."""
        self._due.pop(transport, None)
        self.start(transport)

    def stop(self, transport: asyncio.Transport) -> None:
        self._due.pop(transport, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now, over = loop.time(), []
        for transport, due in self._due.items():
            if due > now:
                self._timer = loop.call_at(due, self._look)
                break
            over.append(transport)
        for transport in over:
            # One that is late may end others: those are not told.
            if self._due.pop(transport, None) is not None:
                self._late(transport)
