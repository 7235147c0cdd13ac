"""Attach, replay, merge, live: how a connection gets its place in the stream, and gets it back.

It is the only way of recovery: for a client that comes back, and for all of them when NATS was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from gateway import frame
from gateway.feed.missed import Missed
from gateway.feed.resume import Gap, merge, plan
from gateway.feed.subscriptions import Subscriptions
from gateway.hub.endings import Ending
from gateway.hub.holding import Hole
from gateway.hub.hub import Audience, Hub
from gateway.hub.session import Session
from gateway.hub.tails import overlapping, split
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.history import History, Position
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, TidegateError
from tidegate_common.runtime.tasks import end

log = logging.getLogger(__name__)

BATCH_BYTES = 32_768
"""Replayed events are joined up to this size into one write."""

REJOIN_AT_ONCE = 64
"""Connections that read the stream at the same time after NATS was away."""

ROOM_SECONDS = 30.0
"""How long a replay waits for a client that does not read."""

Welcome = Callable[[EventId, bool], bytes]
"""Makes the first chunk, from the position that the client has now, and whether it was resumed."""


class Attachments:
    """Brings sessions to where they are live. It owns the tasks that it starts: `aclose` ends them."""

    def __init__(self, bus: Bus, hub: Hub, history: History, subscriptions: Subscriptions) -> None:
        self._bus = bus
        self._hub = hub
        self._history = history
        self._missed = Missed(hub, history, subscriptions)
        self._subscriptions = subscriptions
        self._rejoining: set[asyncio.Task[None]] = set()
        self._waiting: list[Session] = []
        self.replayed = 0
        self.gaps = {"expired": 0, "epoch": 0}
        self.returned = 0
        """Connections whose client had been here before."""
        self.holes = 0
        """Holes in the live feed that were mended."""
        subscriptions.on_hole = self._mend
        self._doubting: asyncio.Task[None] | None = None
        subscriptions.on_restart = self._restart
        subscriptions.on_doubt = self._doubt
        bus.on_disconnect.append(self._cut_off)
        bus.on_reconnect.append(self._come_back)

    async def aclose(self) -> None:
        """Ends the tasks that bring sessions back."""
        await end(self._rejoining)
        if self._doubting is not None:
            await end([self._doubting])

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
        position can't be had.
        """
        self._hub.add(session, tails, overlapping=overlapping(tails))
        try:
            position = await self._history.position()
            due = plan(last_event_id, position, since)
            await start()
        except BaseException:
            session.ending = session.ending or Ending.FEED
            session.lost()
            raise
        self.found(position)
        if ends_at:
            self._subscriptions.over(tails[0], ends_at)
        self.returned += last_event_id is not None
        # A resumed client that is cut off during the replay must come back with its own id, not with the present one.
        session.epoch = position.epoch
        session.position = session.covered = session.began = due.after
        if session.ending is not None:
            return
        session.send(welcome(EventId(position.epoch, due.after), due.resumed))
        if due.gap is not None:
            self._announce(session, due.gap)
        try:
            await self._catch_up(session, position)
        except BaseException:
            self._hub.end(session, Ending.FEED)
            raise

    async def _catch_up(self, session: Session, position: Position | None) -> None:
        """Reads the stream until the session has all of it, then releases it. `position` is of after the hold."""
        while not _ended(session):
            try:
                if position is None:
                    position = await self._history.position()
                self.found(position)
                if position.epoch != session.epoch:
                    place = EventId(session.epoch, session.position)
                    gap = Gap("epoch", str(place), f"{position.epoch}-{position.last}")
                    session.epoch = position.epoch
                    session.position = session.covered = session.began = position.last
                    session.holes = None
                    self._announce(session, gap)
                    self._hub.hold(session)  # anew: what is held may carry ids of the old epoch
                    position = None
                    continue
                await self._fill(session)
                await self._replay(session, position.last)
            except BrokerUnavailable:
                # NATS is away: the connection stays open, and is tried again when there is something to ask.
                position = None
                await asyncio.sleep(random.uniform(0.1, 0.5))
                continue
            if _ended(session):
                return
            # Said before holes are looked at: what was in one that showed meanwhile has come with the replay.
            session.position = session.covered = max(session.position, position.last)
            if session.holes or (session.held is not None and session.held.broken):
                self._hub.hold(session)
                position = None
                continue
            self._subscriptions.known_from(session.tails, position.last)
            self._hub.release(session)
            self._subscriptions.finish(session)
            return

    async def _replay(self, session: Session, upto: int) -> None:
        """Writes what the stream keeps for the session after its position, up to sequence `upto`."""
        if session.position >= upto:
            return
        batch: list[bytes] = []
        size = reached = 0
        async for stored in merge([self._missed.after(tail, session.position, upto) for tail in session.tails]):
            event_id = self._subscriptions.event_id(stored.sequence)
            chunk = self._subscriptions.chunk(event_id, stored.header, stored.payload)
            reached = stored.sequence
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                await self._write(session, batch, reached)
                batch, size = [], 0
            if session.ending is not None:
                return
        if batch:
            await self._write(session, batch, reached)

    async def _fill(self, session: Session) -> None:
        """Writes what the live feed left out and later events, on other tails, have already overtaken.

        Those events have no `id:` line: ids on one connection never go back, and a client's last id stays that of its
        present place, so that it misses nothing when it breaks off here. What was not overtaken is left to the replay.
        """
        while session.holes:
            hole = session.holes[0]
            upto = min(hole.upto, session.position)
            missed = self._missed.after(hole.tail, max(hole.after, session.covered), upto)
            batch = [self._subscriptions.chunk(None, stored.header, stored.payload) async for stored in missed]
            await self._write(session, batch, session.position)
            session.holes.remove(hole)

    async def _write(self, session: Session, batch: list[bytes], reached: int) -> None:
        """Writes `batch`, which brings the session to sequence `reached`, as soon as the client has room for it.

        Only then has it got there: what was read and not written, because NATS went away, has to be read again.
        """
        if session.paused and session.ending is None:
            session.room = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(ROOM_SECONDS):
                    await session.room
            except TimeoutError:
                self._hub.end(session, Ending.SLOW)
            finally:
                session.room = None
        if batch and session.ending is None:
            session.send(b"".join(batch))
            session.position = reached
            self._hub.sent += len(batch)
            self.replayed += len(batch)

    def _announce(self, session: Session, gap: Gap) -> None:
        self.gaps[gap.reason] += 1
        session.send(frame.chunk(frame.gap(gap.reason, gap.start, gap.end)))

    def _mend(self, audience: Audience, hole: Hole) -> None:
        """The feed has left events out: those who listen are held, before anything later is handed over, and read them.

        A session that is being attached reads the stream once more by itself.
        """
        self.holes += 1
        if split(audience.tail)[1]:
            hole = hole._replace(tail=audience.tail)
        for session in audience.joining:
            session.holes = [*(session.holes or []), hole]
            if session.held is not None:
                session.held.break_off()
        sessions = list(audience.live)
        for session in sessions:
            session.holes = [hole]
            self._hub.hold(session)
        self._start(sessions, "rejoining sessions after a hole in the feed")

    def _cut_off(self) -> None:
        """NATS is gone: what comes on the next connection may have a hole before it."""
        self._subscriptions.forget()
        self._waiting += self._hold_all()

    def _restart(self) -> None:
        """The stream was made anew: every session has to find its place in the new one."""
        self._start(self._hold_all(), "rejoining sessions, the stream was made anew")

    def found(self, position: Position) -> None:
        """The stream was asked for its place. If it is another than before, everyone has to find theirs in it."""
        before, self._subscriptions.epoch = self._subscriptions.epoch, position.epoch
        if before not in ("", position.epoch):
            self._subscriptions.forget()
            self._restart()
        self._subscriptions.placed = position.last

    def _doubt(self) -> None:
        """An event came whose sequence the stream had already: it was late, or the stream was made anew. Asks which."""
        if self._doubting is None or self._doubting.done():
            self._doubting = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        with contextlib.suppress(BrokerUnavailable):  # when NATS is back, all are placed anew
            self.found(await self._history.position())

    def _hold_all(self) -> list[Session]:
        """Holds every session, and breaks what those held that were held already. Gives those that were live."""
        live = [session for session in self._hub.sessions if session.held is None]
        for session in self._hub.sessions:
            held = session.held or self._hub.hold(session)
            held.break_off()
        return live

    async def _come_back(self) -> None:
        """NATS is back: every session that was live gets its place again, in a task that outlives this callback."""
        sessions, self._waiting = self._waiting, []
        self._start(sessions, "rejoining sessions after NATS was away")

    def _start(self, sessions: list[Session], reason: str) -> None:
        if sessions:
            log.info(reason, extra={"sessions": len(sessions)})
            task = asyncio.create_task(self._rejoin(sessions))
            self._rejoining.add(task)
            task.add_done_callback(self._rejoining.discard)

    async def _rejoin(self, sessions: list[Session]) -> None:
        limit = asyncio.Semaphore(REJOIN_AT_ONCE)

        async def one(session: Session) -> None:
            async with limit:
                if session.ending is None:
                    self._hub.hold(session)  # anew: what came meanwhile is in the stream, and the hold is bounded
                    try:
                        await self._catch_up(session, None)
                    except TidegateError:
                        self._hub.end(session, Ending.FEED)

        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(one(session))


def _ended(session: Session) -> bool:
    """Asked anew after each await: the client may have gone meanwhile."""
    return session.ending is not None
