"""Attach, replay, merge, live: how a connection gets its place in the stream, and gets it back.

It is the only way of recovery: for a client that comes back, and for all of them when NATS was away.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from gateway.feed.repair import Repairs
from gateway.feed.replay import Replay
from gateway.feed.resume import Gap, plan, shared
from gateway.feed.subscriptions import Subscriptions
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from gateway.hub.tails import overlapping
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.requests.callers import CALLER
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

STALE_SECONDS = 20.0
"""So long may a NATS server that is cut off from the others take itself for the stream's leader, and more."""

Welcome = Callable[[EventId, bool], bytes]
"""Makes the first chunk, from the position that the client has now, and whether it was resumed."""


class Attachments:
    """Brings sessions to where they are live."""

    def __init__(
        self, bus: Bus, hub: Hub, history: History, subscriptions: Subscriptions, patience_seconds: float
    ) -> None:
        """A replay that reads nothing of the stream for `patience_seconds`, while NATS answers for it, is given up."""
        self._hub = hub
        self._patience = patience_seconds
        self._stuck = Trouble(
            log, f"a replay got nothing of the stream for {patience_seconds:g} s: its connection is ended"
        )
        self._history = history
        self._subscriptions = subscriptions
        self.replay = Replay(hub, history, subscriptions)
        self.repairs = Repairs(bus, hub, history, subscriptions, self._catch_up)
        self.returned = 0
        """Connections whose client had been here before."""
        self.stuck = 0
        """Replays that were given up because nothing of the stream could be read."""

    async def aclose(self) -> None:
        """Ends the tasks that bring sessions back."""
        await self.repairs.aclose()

    async def attach(
        self,
        session: Session,
        tails: list[str],
        last_event_id: str | None,
        start: Callable[[], Awaitable[None]],
        welcome: Welcome,
        since: str | None = None,
        ends_at: int = 0,
    ) -> None:
        """Makes `session` live on `tails`: `start` sends the response head, then `welcome` and what was missed.

        A client that comes for the first time, or with an id that means nothing here, gets what there is after the id
        `since`, or only what comes now. `ends_at` is the sequence of the last event of a stream that is known to end,
        which is ended there though that event may be gone. Raises BrokerUnavailable before `start`, where the stream's
        position can't be had for so long as an election may take, and where NATS brings nothing on one of `tails`.
        """
        self._hub.add(session, tails, overlapping=overlapping(tails))
        try:
            self._subscriptions.check(tails)
            position = await self._first_position(session)
            self._subscriptions.check(tails)  # an answer to the subscription has come by now
            due = plan(last_event_id, position, since)
            await start()
        except BaseException:
            session.ending = session.ending or Ending.REFUSED
            session.lost()
            raise
        self.returned += last_event_id is not None
        # A resumed client that is cut off during the replay must come back with its own id, not with the present one.
        session.epoch = position.epoch
        session.position = session.covered = session.began = due.after
        if session.ending is not None:
            return
        if ends_at:
            self._subscriptions.over(tails[0], ends_at)
        session.send(welcome(EventId(position.epoch, due.after), due.resumed))
        if due.gap is not None:
            self.replay.announce(session, due.gap)
        told = due.after if due.gap is not None and due.gap.reason == "epoch" else -1
        try:
            await self._catch_up(session, position, told)
        except BaseException:
            self._hub.end(session, Ending.FEED)
            raise

    async def _catch_up(self, session: Session, position: Position | None = None, told: int = -1) -> None:
        """Reads the stream until the session has all of it, then releases it.

        `position` is of after the hold, `told` the place that the client was given by a gap of the kind `epoch`.
        """
        doubtful_since: float | None = None
        failing = _Failing()
        while True:
            try:
                position = position or await self._position()
                if _ended(session):
                    return
                if position.copies and position.epoch == session.epoch and position.last < session.position:
                    now = asyncio.get_running_loop().time()
                    doubtful_since = doubtful_since or now
                    if now - doubtful_since < STALE_SECONDS:
                        position = None  # as good as none
                        raise BrokerUnavailable("a server that is behind answers for the stream")
                if position.epoch != session.epoch or position.last < session.position:
                    told = self._begin_anew(session, position)
                    position = None
                    continue
                self._expire(session, position)
                await self.replay.run(session, position, told)
                await self.replay.room(session)
            except BrokerUnavailable as error:
                # NATS is away: the connection stays open, and is tried again when there is something to ask. But where
                # it answers, and gives nothing of the stream, trying again for ever would be a silent hole.
                if position is None:
                    failing = _Failing()
                elif failing.seconds(session) >= self._patience:
                    self._give_up(session, error)
                    return
                position = None
                await asyncio.sleep(random.uniform(0.1, 0.5))
                continue
            if _ended(session):
                return
            session.position = session.covered = max(session.position, position.last)
            session.known = None
            assert session.held is not None
            if not session.held.broken and self._subscriptions.holes.place(session.tails, position.last):
                self._hub.release(session)
                self._subscriptions.finish(session)
                return
            self._hub.hold(session)
            position = None

    def _give_up(self, session: Session, error: BrokerUnavailable) -> None:
        """Ends a session whose replay gets nothing, though NATS is there."""
        self.stuck += 1
        self._stuck.note(error)
        self._hub.end(session, Ending.FEED)

    async def _first_position(self, session: Session) -> Position:
        """As `_position`, waited for as long as the client does, and an election may take."""
        token = CALLER.set(session)
        try:
            position = await self._history.patient_position()
        finally:
            CALLER.reset(token)
        self.repairs.found(position)
        return position

    async def _position(self) -> Position:
        """Where the stream is. Said on the spot, so that what is asked later is also told later."""
        position = await self._history.position()
        self.repairs.found(position)
        return position

    def _begin_anew(self, session: Session, position: Position) -> int:
        """The session's place is of another life of the stream, or of one whose end is lost.

        Where the stream was restored with all that the session has had, its place holds. Else it is told a gap. Gives
        the place after that; -1 for none.
        """
        place, told = EventId(session.epoch, session.position), -1
        if position.place(place) is None:
            told = session.position = session.covered = session.began = shared(session.epoch, position)
            session.known = None
            self.replay.announce(session, Gap("epoch", str(place), str(EventId(position.epoch, told))))
        session.epoch = position.epoch
        self._hub.hold(session)  # anew: what is held may carry ids of the old life
        return told

    def _expire(self, session: Session, position: Position) -> None:
        """Tells the session what has left the stream while it was held, or was being replayed."""
        had = session.known.upto if session.known is not None else session.covered
        if max(had, session.covered) + 1 < position.first:
            kept = EventId(position.epoch, position.first - 1)
            self.replay.announce(session, Gap("expired", str(EventId(position.epoch, session.position)), str(kept)))
            session.position = max(session.position, kept.sequence)
            session.covered = kept.sequence


class _Failing:
    """Since when a session's replay has failed at one place."""

    def __init__(self) -> None:
        self._since = 0.0
        self._place: tuple[int, int] | None = None

    def seconds(self, session: Session) -> float:
        """It failed again just now: how long the session has been where it is."""
        place, now = (session.covered, session.position), asyncio.get_running_loop().time()
        if place != self._place:
            self._place, self._since = place, now
        return now - self._since


def _ended(session: Session) -> bool:
    """Asked anew after each await: the client may have gone meanwhile."""
    return session.ending is not None
