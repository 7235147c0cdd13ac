"""Looks now and then whether the stream has events that the feed did not bring.

A hole shows by itself with the next event on its subject. If no next one comes, nothing shows it: routes between the
servers of a NATS cluster lose what is under way when they break, and a gateway's own connection stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import random

from gateway.feed.life import StreamLife
from gateway.feed.places import Places, verified
from gateway.feed.repair import Repairs
from gateway.feed.survey import Lasts, survey
from gateway.hub.hub import Audience, Hub
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
"""What the stream has and the feed has not brought may still be on its way for so long."""


class Audit:
    """Compares the last event of each subject that someone here listens to with what was heard."""

    def __init__(
        self, bus: Bus, hub: Hub, history: History, life: StreamLife, repairs: Repairs, seconds: float
    ) -> None:
        """`seconds` between two looks, jittered by a fifth; 0 for none."""
        self._hub = hub
        self._history = history
        self._life = life
        self._repairs = repairs
        self._outbound = bus.subjects.outbound("")
        self._seconds = seconds
        self._blind = Trouble(log, "the feed can't be audited", "the feed is audited again", level=logging.INFO)

    async def run(self) -> None:
        """Looks for ever."""
        while self._seconds:
            await asyncio.sleep(self._seconds * random.uniform(0.8, 1.2))
            try:
                await self.look()
                self._blind.over()
            except BrokerUnavailable as error:
                self._blind.note(error)

    async def look(self) -> None:
        """One look. Raises BrokerUnavailable."""
        position = await self._life.position()
        life = self._life.number  # after the answer: that may have ended the life before
        # Those alone who have heard less than there is: if nothing was stored since the last look, nothing is asked.
        # A tail of which nothing is known yet is for those to read who are joining.
        audiences = [each for each in self._hub.everyone() if 0 <= each.heard < position.last]
        lasts = await survey(self._history, {each.tail: each.heard for each in audiences}, position.last)
        behind = self._behind(audiences, lasts)
        if behind and life == self._life.number:
            await asyncio.sleep(GRACE_SECONDS)
            behind = self._behind(audiences, lasts)
        if life != self._life.number:
            return  # what was found is of another life
        live = dict.fromkeys(session for audience in behind for session in audience.live)
        self._repairs.holes += sum(bool(audience.live) for audience in behind)
        # In this order: the repair notes how far was heard before `verified` moves that on.
        self._repairs.repair(live, "an audit of the feed")
        for audience, last in behind.items():
            audience.complete_from = max(audience.complete_from, last)
        for audience in audiences:
            if lasts[audience.tail] is not None:
                verified(audience, position.last)

    def _behind(self, audiences: list[Audience], lasts: dict[str, Lasts]) -> dict[Audience, int]:
        """The audiences that have not heard all, and the last sequence that each lacks."""
        # Most have nothing more: noting the places of 5,000 tails holds the loop for 20 ms (measured).
        there = [each for each in audiences if lasts[each.tail]]
        places = Places(there, self._outbound)
        found = {each: places.missing(each.tail, lasts[each.tail]) for each in there}
        return {audience: last for audience, last in found.items() if last}
