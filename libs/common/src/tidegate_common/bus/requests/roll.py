"""Says which gateways come, leave and fall silent, as one process hears them."""

from __future__ import annotations

import asyncio
import logging

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.gateways import SILENCE_SECONDS, LiveGateways
from tidegate_common.errors import BrokerUnavailable

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

SILENT = (
    f"has been silent for {SILENCE_SECONDS:g} s and has not said that it leaves: "
    "see whether it was killed, hangs, or is cut off from NATS"
)


class Roll:
    """The gateways that were said to be here."""

    def __init__(self, bus: Bus, live: LiveGateways) -> None:
        self._bus = bus
        self._live = live
        self._here: set[str] = set()
        self._silent: set[str] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.call()
            except BrokerUnavailable:
                continue  # that is said elsewhere, and nobody can be heard

    async def call(self) -> None:
        """One look. Raises BrokerUnavailable: that nobody speaks may be NATS that hangs."""
        now = self._live.now()
        if not self._live.known or (now == self._here and not self._live.left):
            return
        if self._here - now:
            await self._bus.round_trip(LOOK_SECONDS)
            now = self._live.now()  # those that were behind NATS's hanging have been heard meanwhile
        left, self._live.left = self._live.left, set()
        for gateway in sorted(now - self._here):
            self._say("is heard again" if gateway in self._silent else "is here", gateway, now)
        for gateway in sorted(self._here - now - left):
            self._say(SILENT, gateway, now, logging.WARNING)
        for gateway in sorted((self._here | self._silent) & left - now):
            self._say("has left", gateway, now)
        self._silent = (self._silent | self._here) - now - left
        self._here = now

    def _say(self, text: str, gateway: str, now: set[str], level: int = logging.INFO) -> None:
        log.log(level, "gateway %s %s; %d in all", gateway, text, len(now))
