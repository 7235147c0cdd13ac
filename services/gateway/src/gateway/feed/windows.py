"""Replays of tails that many listen to: read from the stream once, not once for each client that comes back.

When a gateway dies, thousands of clients come back to another within a second, and all of them have missed the same
broadcasts. What the stream keeps between two sequences does not change but by removal, so that it can be read once
for all of them. It is kept for a moment only: an event whose time to live is over is not replayed for much longer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator

from tidegate_common.bus.events.history import History, Stored

KEEP_SECONDS = 2.0
MAX_EVENTS = 4096
MAX_BYTES = 4 << 20
"""Of one window; what lies beyond is read by each client for itself."""
MAX_BYTES_IN_ALL = 32 << 20
"""Of all windows, those that are somebody's still included: past it, each client reads for itself, page by page."""

EVENT_BYTES = 300
"""What an event costs beside its header block and its payload."""


class _Window:
    """All events on one tail with sequences over `start` up to `upto`, in order."""

    def __init__(self, start: int) -> None:
        self.start = self.upto = start
        self.events: list[Stored] = []
        self.size = 0
        self.readers = 0
        self.kept = True
        """For those who come now."""
        self.lock = asyncio.Lock()

    def full(self) -> bool:
        return len(self.events) >= MAX_EVENTS or self.size >= MAX_BYTES


class Windows:
    """History with a window for each shared tail, for a moment."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._windows: dict[tuple[int, str], _Window] = {}
        self.size = 0
        """Bytes that all windows hold."""

    async def after(self, life: int, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """As `History.after`; `life` numbers the stream's life that the sequences are of. Raises BrokerUnavailable.

        Not its epoch: a stream that has lost its end with a disk keeps that, and gives the same sequences again.
        """
        window = self._window(life, tail, sequence)
        if sequence >= window.start:
            window.readers += 1
            try:
                async with window.lock:
                    await self._extend(window, tail, upto)
                first = bisect_right(window.events, sequence, key=lambda stored: stored.sequence)
                # Together: another may read on while these are handed over.
                found, sequence = window.events[first:], max(sequence, window.upto)
                for stored in found:
                    if stored.sequence > upto:
                        return
                    yield stored
            finally:
                window.readers -= 1
                self._drop(window)
        # Before the window, or beyond what it may hold.
        async for stored in self._history.after(tail, sequence, upto):
            yield stored

    def _window(self, life: int, tail: str, sequence: int) -> _Window:
        """The tail's present window; a new one if there is none, or none that begins early enough."""
        key = life, tail
        window = self._windows.get(key)
        # One that is being read stays, with all who wait for it. Who begins earlier reads for itself this time.
        if window is None or (sequence < window.start and not window.lock.locked()):
            if window is not None:
                self._let_go(key, window)
            window = self._windows[key] = _Window(sequence)
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._let_go, key, window)
        return window

    def _let_go(self, key: tuple[int, str], window: _Window) -> None:
        """Those who read it go on with it; whoever comes gets another."""
        if window.kept:
            window.kept = False
            del self._windows[key]
            self._drop(window)

    def _drop(self, window: _Window) -> None:
        if not window.kept and not window.readers:
            self.size -= window.size
            window.size = 0

    async def _extend(self, window: _Window, tail: str, upto: int) -> None:
        """Reads on up to `upto`, or until the window is full."""
        if window.upto >= upto or self._full(window):
            return
        async for stored in self._history.after(tail, window.upto, upto):
            window.events.append(stored)
            window.upto = stored.sequence  # at each event: if NATS goes away now, the next one reads on from here
            size = len(stored.header) + len(stored.payload) + EVENT_BYTES
            window.size += size
            self.size += size
            if self._full(window):
                return
        window.upto = upto

    def _full(self, window: _Window) -> bool:
        return window.full() or self.size >= MAX_BYTES_IN_ALL
