"""Replays of tails that many listen to: read from the stream once, not once for each client that comes back.

When a gateway dies, thousands of clients come back to another within a second, and all of them have missed the same
broadcasts. What the stream keeps between two sequences does not change but by removal, so that it can be read once
for all of them. It is kept for a moment only: an event whose time to live is over is not replayed for longer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable

from tidegate_common.bus.history import History, Stored

KEEP_SECONDS = 2.0
MAX_EVENTS = 4096
MAX_BYTES = 4 << 20
"""Of one window; what lies beyond is read by each client for itself."""


class _Window:
    """All events on one tail with sequences over `start` up to `upto`, in order."""

    def __init__(self, start: int, born: float) -> None:
        self.start = self.upto = start
        self.born = born
        self.events: list[Stored] = []
        self.size = 0
        self.lock = asyncio.Lock()

    def full(self) -> bool:
        return len(self.events) >= MAX_EVENTS or self.size >= MAX_BYTES


class SharedHistory:
    """History with a window for each shared tail."""

    def __init__(self, history: History, clock: Callable[[], float]) -> None:
        self._history = history
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}

    async def after(self, epoch: str, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """As `History.after`; `epoch` says which life of the stream the sequences are of. Raises BrokerUnavailable."""
        window = self._window(epoch, tail, sequence)
        if sequence >= window.start:
            async with window.lock:
                await self._extend(window, tail, upto)
            first = bisect_right(window.events, sequence, key=lambda stored: stored.sequence)
            for stored in window.events[first:]:
                if stored.sequence > upto:
                    return
                yield stored
            sequence = max(sequence, window.upto)
        # Before the window, or beyond what it may hold.
        async for stored in self._history.after(tail, sequence, upto):
            yield stored

    def _window(self, epoch: str, tail: str, sequence: int) -> _Window:
        """The tail's present window; a new one where there is none that is young and begins early enough."""
        now = self._clock()
        for key in [key for key, window in self._windows.items() if now - window.born > KEEP_SECONDS]:
            del self._windows[key]
        window = self._windows.get((epoch, tail))
        if window is None or (sequence < window.start and not window.lock.locked()):
            window = self._windows[epoch, tail] = _Window(sequence, now)
        return window

    async def _extend(self, window: _Window, tail: str, upto: int) -> None:
        """Reads on up to `upto`, or until the window is full."""
        if window.upto >= upto or window.full():
            return
        async for stored in self._history.after(tail, window.upto, upto):
            window.events.append(stored)
            window.size += len(stored.header) + len(stored.payload)
            window.upto = stored.sequence
            if window.full():
                return
        window.upto = upto
