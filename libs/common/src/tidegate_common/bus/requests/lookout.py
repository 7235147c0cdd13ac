"""Whoever hears what a stream republishes also looks, in case something was lost on the way.

Routes between servers lose what is under way when they break, while the connection stays as it was. So there is a look
each LOOK_SECONDS, and one at once after a reconnect or when a message shows that one before it is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.retry import RETRY_SECONDS
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0

BROKEN_SECONDS = 5.0
"""Before the next try after a fault of ours."""


class Lookout:
    """Looks until it is cancelled, whatever goes wrong: what was heard last would count for ever."""

    def __init__(self, bus: Bus, what: str, look: Callable[[bool], Awaitable[None]]) -> None:
        """`look` is told whether something is known to be missing. It raises BrokerUnavailable."""
        self._bus = bus
        self._look = look
        self._behind = asyncio.Event()
        self._trouble = Trouble(log, f"{what} can't be read", f"{what} can be read again")
        self._broken = Trouble(log, f"reading {what} fails by a fault of ours", level=logging.ERROR)

    @property
    def behind(self) -> bool:
        """Whether something may be missing that no look has begun for."""
        return self._behind.is_set()

    def lacks(self) -> None:
        """Something is missing."""
        self._behind.set()

    async def reconnected(self) -> None:
        """Something may have been missed."""
        self._behind.set()

    async def run(self) -> None:
        while True:
            await self._until_behind()
            behind = self._behind.is_set()
            self._behind.clear()
            try:
                await self._look(behind)
                self._trouble.over()
            except BrokerUnavailable as error:
                if self._bus.connected:  # its absence is said elsewhere
                    self._trouble.note(error)
                await self._try_again(RETRY_SECONDS)
            except Exception as error:
                self._broken.note(type(error).__name__, error)
                await self._try_again(BROKEN_SECONDS)

    async def _try_again(self, pause: float) -> None:
        self._behind.set()
        await asyncio.sleep(pause)

    async def _until_behind(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._behind.wait()
        except TimeoutError:
            pass
