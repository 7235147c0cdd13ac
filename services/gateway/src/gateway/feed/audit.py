"""Looks now and then whether the stream has events that the feed did not bring.

A hole shows by itself with the next event on its subject. Where no next one comes, nothing shows it: routes between the
servers of a NATS cluster lose what is under way when they break, and a gateway's own connection stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import random

from gateway.feed.holes import HoleDetector
from gateway.feed.repair import Repairs
from gateway.hub.hub import Hub
from gateway.hub.tails import split
from tidegate_common.bus.events.history import History, Latest
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

SUBJECTS_AT_ONCE = 500
"""Asked for in one request: the server answers for 1,024 at most."""

GRACE_SECONDS = 1.0
"""What the stream has and the feed has not brought may still be on its way for so long."""


class Audit:
    """Compares the last event of each subject that someone here listens to with what was heard."""

    def __init__(self, hub: Hub, history: History, holes: HoleDetector, repairs: Repairs, seconds: float) -> None:
        """`seconds` between two looks, jittered by a fifth; 0 for none."""
        self._hub = hub
        self._history = history
        self._holes = holes
        self._repairs = repairs
        self._seconds = seconds
        self._blind = Trouble(log, "the feed can't be audited", "the feed is audited again", level=logging.INFO)
        self._epoch = ""
        self._last = self._checked = 0
        """The stream's last sequence at the look before, and at the one before that."""

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
        position = await self._history.position()
        self._repairs.found(position)
        if position.epoch != self._epoch or position.last < self._last:
            self._epoch, self._last, self._checked = position.epoch, 0, 0
        if position.last == self._checked:
            self._holes.checked = self._checked
            return
        found = await self._latest(self._checked)
        if any(0 < latest.upto < position.last for latest in found):
            return  # a copy of the stream that is behind: the next look begins where this one did
        # A copy that has nothing does not say how far it is: each event is looked for twice, an interval apart.
        self._checked, self._last = self._last, position.last
        late = [each for latest in found for each in latest.sequences.items() if self._holes.behind(*each)]
        if late:
            await asyncio.sleep(GRACE_SECONDS)
            for tail, sequence in late:
                self._holes.missed(tail, sequence)
        self._holes.checked = self._checked

    async def _latest(self, after: int) -> list[Latest]:
        """The last events over `after`; not of wildcards that match more subjects than the server answers for."""
        found = []
        wide = [audience.tail for audience in self._hub.wide()]
        exact = list({split(each.tail)[0] for each in self._hub.everyone() if each.heard_by_subject is None})
        for start in range(0, len(exact), SUBJECTS_AT_ONCE):
            latest = await self._history.latest(exact[start : start + SUBJECTS_AT_ONCE], after)
            assert latest is not None, "so many subjects are not too many"
            found.append(latest)
        for tail in wide:
            latest = await self._history.latest([tail], after)
            if latest is not None:
                found.append(latest)
        return found
