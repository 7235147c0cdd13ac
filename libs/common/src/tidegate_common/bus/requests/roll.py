"""Which gateways are there, as one process hears them, and the lines that say who comes, leaves and falls silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tidegate_common.bus.connection import Bus
from tidegate_common.contract.gateways import Announcement
from tidegate_common.errors import BrokerUnavailable

log = logging.getLogger(__name__)

SILENCE_SECONDS = 3.0
"""A gateway that has said nothing for so long is forgotten."""

DOUBT_SECONDS = 60.0
"""A gateway that fell silent without saying that it leaves may still have its connections for so long.

It is paused, or cut off from NATS, and a stream outlives that for up to a minute. The clients of a killed one have come
back elsewhere by then.
"""

MOST_LEFT = 1000
"""So many that have left are remembered for whoever asks."""

LEARN_SECONDS = 1.5
"""After connecting there may be gateways that have not been heard yet: answers are collected for the whole wait."""

LOOK_SECONDS = 1.0

SILENT = (
    f"has been silent for {SILENCE_SECONDS:g} s and has not said that it leaves: "
    "see whether it was killed, hangs, or is cut off from NATS"
)


class LiveGateways:
    """The gateways that are there, by what they say. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float], doubt_seconds: float = DOUBT_SECONDS) -> None:
        self._clock = clock
        self._doubt_seconds = doubt_seconds
        self._heard: dict[str, float] = {}
        self.left: set[str] = set()
        """Those that said so, for whoever wants to know how they went."""
        self._since = clock()

    @property
    def known(self) -> bool:
        """Whether every gateway has had the time to announce itself."""
        return self._clock() - self._since >= LEARN_SECONDS

    @property
    def doubted(self) -> bool:
        """Whether there may be a gateway that does not speak.

        One fell silent without saying that it leaves, or this has not listened for long enough to know of it.
        """
        now = self._clock()
        silent = (now - heard for heard in self._heard.values())
        return now - self._since < self._doubt_seconds or any(
            SILENCE_SECONDS <= each < self._doubt_seconds for each in silent
        )

    def start_anew(self) -> None:
        """Nothing was heard for some time: who is there has to be learned again."""
        self._heard.clear()
        self._since = self._clock()

    def said(self, announcement: Announcement) -> None:
        if announcement.leaving:
            self._heard.pop(announcement.gateway, None)
            if len(self.left) >= MOST_LEFT:
                self.left.clear()
            self.left.add(announcement.gateway)
        else:
            self._heard[announcement.gateway] = self._clock()

    def now(self) -> set[str]:
        """Ids of the gateways that are there; not of those that were silent for too long."""
        now = self._clock()
        oldest = now - max(SILENCE_SECONDS, self._doubt_seconds)
        self._heard = {gateway: heard for gateway, heard in self._heard.items() if heard > oldest}
        return {gateway for gateway, heard in self._heard.items() if heard > now - SILENCE_SECONDS}


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
