"""What time does to sessions: heartbeats, the idle and the age limit, and the drain. One timer for all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session

SLICES = 16
"""Heartbeats go out in so many turns, so that 10,000 writes don't hold up the loop at once."""

STALLED_BEATS = 4
"""A session that could not be written to for so many heartbeats has lost its peer."""

FEWEST_PER_SECOND = 10
"""A drain is not slower: so few at a time are no burden for whoever takes them, and a stop with few need not wait."""


class Heartbeat:
    """Keeps the sessions of one hub alive, or ends them when their time has come."""

    def __init__(
        self,
        hub: Hub,
        heartbeat: bytes,
        clock: Callable[[], float],
        *,
        heartbeat_seconds: float,
        idle_seconds: float,
        max_age_seconds: float,
    ) -> None:
        """`heartbeat` is the chunk to write. Limits of 0 are none; the age limit is jittered by a fifth."""
        self._hub = hub
        self._heartbeat = heartbeat
        self._clock = clock
        self._seconds = heartbeat_seconds
        self._idle_beats = idle_seconds / heartbeat_seconds if idle_seconds else float("inf")
        self._max_age = max_age_seconds
        self._slices: list[dict[Session, None]] = [{} for _ in range(SLICES)]

    def keep(self, session: Session) -> None:
        """Heartbeats for `session` from its next turn on: its response head is out."""
        self._slice(session)[session] = None

    def forget(self, session: Session) -> None:
        """`session` is gone. Left to its next turn, all that came and went in a heartbeat's time would be kept."""
        self._slice(session).pop(session, None)

    async def run(self) -> None:
        """Turns for ever."""
        turn = 0
        while True:
            await asyncio.sleep(self._seconds / SLICES)
            self.beat(self._slices[turn])
            turn = (turn + 1) % SLICES

    def beat(self, sessions: dict[Session, None]) -> None:
        """One heartbeat for `sessions`."""
        now = self._clock()
        for session in list(sessions):
            if session.ending is not None:
                continue
            session.beats += 1
            if session.beats > self._idle_beats:
                self._hub.end(session, Ending.IDLE)
            elif self._max_age and session.age_seconds(now) > self._max_age * self._share(session):
                self._hub.end(session, Ending.MAX_AGE)
            elif not session.paused:
                session.send(self._heartbeat)
            elif session.beats > STALLED_BEATS:
                self._hub.end(session, Ending.SLOW)

    async def drain(self, seconds: float) -> None:
        """Ends all connections: the process is being stopped."""
        connections = [session for session in self._hub.sessions if session.connection]
        await self.end_spread(connections, seconds, Ending.DRAIN)

    async def end_spread(self, sessions: list[Session], seconds: float, ending: Ending) -> None:
        """Ends `sessions`, spread evenly over `seconds`, so that no moment sees more than its share of them back.

        If that would be less than ten a second it is ten a second, and over sooner.
        """
        random.shuffle(sessions)
        pause = min(1 / FEWEST_PER_SECOND, seconds / len(sessions)) if sessions else 0
        start, closed = self._clock(), 0
        for session in sessions:
            if session.ending is not None:
                continue  # gone by itself: nothing to wait for
            ahead = start + closed * pause - self._clock()
            if ahead > 0:
                await asyncio.sleep(ahead)
            self._hub.end(session, ending)
            closed += 1

    @staticmethod
    def _share(session: Session) -> float:
        """0.8 to 1.0 of the age limit, the same for one session each time it is asked for."""
        # Objects begin at multiples of 16 or more, so an address's low bits are alike. A prime spreads the others.
        return 1.0 - (id(session) // 64 % 97) / 97 * 0.2

    def _slice(self, session: Session) -> dict[Session, None]:
        return self._slices[id(session) // 64 % SLICES]
