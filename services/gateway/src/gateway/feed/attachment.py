"""A newcomer: attached, given a place, told what it missed, then live.

What comes from the moment of attaching on is held, and the stream's position is asked for after that: so nothing falls
between the replay, which goes up to that position, and what is held. (Mercure does the same under one lock.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.feed.life import StreamLife
from gateway.feed.recovery import Recovery
from gateway.feed.replay import Replay
from gateway.feed.resume import plan
from gateway.feed.stream_ends import StreamEnds
from gateway.feed.subscriptions import Subscriptions
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from gateway.hub.tails import overlapping
from tidegate_common.bus.events.history import Position
from tidegate_common.bus.streams.patience import WAITER
from tidegate_common.contract.ids import EventId

Welcome = Callable[[EventId, bool], bytes]
"""Makes the first chunk, from the position that the client has now, and whether it was resumed."""


class Attachments:
    """Brings newcomers to where they are live."""

    def __init__(
        self,
        hub: Hub,
        life: StreamLife,
        subscriptions: Subscriptions,
        replay: Replay,
        recovery: Recovery,
        stream_ends: StreamEnds,
    ) -> None:
        self._hub = hub
        self._life = life
        self._subscriptions = subscriptions
        self._replay = replay
        self._recovery = recovery
        self._stream_ends = stream_ends
        self.returned = 0
        """Connections whose client had been here before."""

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
        which is ended there though that event may be gone. Raises BrokerUnavailable before `start` if the stream's
        position can't be had for so long as an election may take, or if NATS brings nothing on one of `tails`.
        """
        self._hub.add(session, tails, overlapping=overlapping(tails))
        try:
            self._subscriptions.check(tails)
            position = await self._position(session)
            due = plan(last_event_id, position, since)
            # On the spot: should this life of the stream end now, whoever has a place in it is ended with it.
            session.position = session.covered = session.began = due.after
            self._subscriptions.check(tails)  # an answer to the subscription has come by now
            await start()
        except BaseException:
            session.ending = session.ending or Ending.REFUSED
            session.lost()
            raise
        self.returned += last_event_id is not None
        if self._life.over(session):
            return
        if ends_at:
            self._stream_ends.note(tails[0], ends_at)
        # Its id is the client's own place, not the stream's: whoever is cut off during the replay comes back with it.
        session.send(welcome(EventId(position.epoch, due.after), due.resumed))
        if due.gap is not None:
            self._replay.announce(session, due.gap)
        told = due.after if due.gap is not None and due.gap.reason == "epoch" else -1
        try:
            await self._recovery.run(session, position, told)
        except BaseException:
            self._hub.end(session, Ending.FEED)
            raise

    async def _position(self, session: Session) -> Position:
        """The stream's position, waited for as long as the client does."""
        token = WAITER.set(session)
        try:
            return await self._life.first_position()
        finally:
            WAITER.reset(token)
