"""Reads the stream for a session that is held, until it may be live: a newcomer, or one whose tails are repaired."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from gateway.feed.life import AGAIN_SECONDS, StreamLife
from gateway.feed.places import Places, settle
from gateway.feed.replay import Replay
from gateway.feed.resume import Gap, shared
from gateway.feed.stream_ends import StreamEnds
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from tidegate_common.bus.events.history import Position
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

STALE_SECONDS = 20.0
"""So long may a NATS server that is cut off from the others take itself for the stream's leader, and more."""


class Recovery:
    """Brings sessions to where they are live."""

    def __init__(
        self, hub: Hub, life: StreamLife, replay: Replay, stream_ends: StreamEnds, patience_seconds: float
    ) -> None:
        """A replay that reads nothing of the stream for `patience_seconds`, while NATS answers for it, is given up."""
        self._hub = hub
        self._life = life
        self._replay = replay
        self._stream_ends = stream_ends
        self._patience = patience_seconds
        self._stuck = Trouble(
            log, f"a replay got nothing of the stream for {patience_seconds:g} s: its connection is ended"
        )
        self.stuck = 0
        """Replays that were given up because nothing of the stream could be read."""

    async def run(
        self,
        session: Session,
        position: Position | None = None,
        told: int = -1,
        places: Places | None = None,
        tails: Sequence[str] | None = None,
    ) -> None:
        """Reads for `session` until it has all, then releases it.

        `position` was asked for after the hold, `told` is the place that a gap of the kind `epoch` has given. A session
        that was live has its `places`, and has more to come up to `position` on `tails` only.
        """
        failing, behind = _Standstill(), _Standstill()
        while not self._life.over(session):
            assert session.held is not None
            if session.held.broken:
                # Not all that came is held. The new hold comes first, then the question: nothing may pass between them.
                self._hub.hold(session)
                position = tails = None
            try:
                position = position or await self._life.position()
                if self._life.over(session):
                    return
                if position.last < session.position:
                    if not position.copies:
                        self._life.end()  # it has lost its end
                        return
                    # Perhaps the word of a server that is cut off from the others, and was the leader.
                    if behind.seconds(session) < STALE_SECONDS:
                        position = None  # as good as none
                        raise BrokerUnavailable("a server that is behind answers for the stream")
                    told, places, tails = self._lose(session, position), None, None
                self.expire(session, position, places)
                await self._replay.run(session, position, told, places, tails)
            except BrokerUnavailable as error:
                # NATS is away: the connection stays open, and is tried again when there is something to ask. But if
                # NATS answers, and gives nothing of the stream, trying again for ever would be a silent hole.
                if position is None:
                    failing = _Standstill()
                elif failing.seconds(session) >= self._patience:
                    self._give_up(session, error)
                    return
                # Which tails have more was true up to the old position alone. What is held is not past the next
                # one, and so not handed on: all tails are read. `places` stay true, they are of the moment of the hold.
                position = tails = None
                await asyncio.sleep(random.uniform(*AGAIN_SECONDS))
                continue
            if self._life.over(session) or self.arrive(session, position):
                return
            # It has everything up to `position`, and so one place again. What it lacks came later.
            position = places = tails = None

    def arrive(self, session: Session, position: Position) -> bool:
        """The session has everything up to `position`: whether it is live now. If not, it has to read once more."""
        # Also if nothing was read: what comes up to the position is not new to it.
        session.position = max(session.position, position.last)
        session.covered = position.last
        # A hold that broke meanwhile takes nothing from that: only what came after the position has to be read.
        assert session.held is not None
        if session.held.broken or not settle(self._hub, session.tails, position.last):
            return False
        self._hub.release(session)
        self._stream_ends.finish(session)
        return True

    def expire(self, session: Session, position: Position, places: Places | None) -> None:
        """Tells the session what has left the stream while it was held, or was being replayed.

        What has left, and was heard before the session was held, is no gap to one that was live.
        """
        had = session.covered
        if places is not None:
            # Its own tails alone: another client's event says nothing of whether one for this client had come.
            had = max(had, session.position, *(places.start(tail) for tail in session.tails))
        if had + 1 < position.first:
            kept = EventId(position.epoch, position.first - 1)
            self._replay.announce(session, Gap("expired", str(EventId(position.epoch, session.position)), str(kept)))
            session.position = max(session.position, kept.sequence)
            session.covered = kept.sequence

    def _lose(self, session: Session, position: Position) -> int:
        """The stream's end is gone, and the session's place with it: tells it. Gives its place after that."""
        place, told = EventId(position.epoch, session.position), shared(position.epoch, position)
        session.position = session.covered = session.began = told
        self._replay.announce(session, Gap("epoch", str(place), str(EventId(position.epoch, told))))
        return told

    def _give_up(self, session: Session, error: BrokerUnavailable) -> None:
        """Ends a session whose replay gets nothing, though NATS is there."""
        self.stuck += 1
        self._stuck.note(error)
        self._hub.end(session, Ending.FEED)


class _Standstill:
    """Since when a session has come no further."""

    def __init__(self) -> None:
        self._when = 0.0
        self._place: tuple[int, int] | None = None

    def seconds(self, session: Session) -> float:
        """Something failed again just now: how long the session has been where it is."""
        place, now = (session.covered, session.position), asyncio.get_running_loop().time()
        if place != self._place:
            self._place, self._when = place, now
        return now - self._when
