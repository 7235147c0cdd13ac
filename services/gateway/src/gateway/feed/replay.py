"""Brings a session what the stream has and the session has not, in one sequence order over all its tails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway import frame
from gateway.feed.missed import Missed
from gateway.feed.resume import Gap, merge
from gateway.feed.subscriptions import Subscriptions
from gateway.hub.endings import Ending
from gateway.hub.holding import Wide
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from tidegate_common.bus.events.history import History, Position, Stored
from tidegate_common.contract.ids import EventId

BATCH_BYTES = 32_768
"""Replayed events are joined up to this size into one write."""

ROOM_SECONDS = 30.0
"""How long a replay waits for a client that does not read."""


class Replay:
    """Reads for one session at a time, bounded in memory. It counts what it wrote, and the gaps."""

    def __init__(self, hub: Hub, history: History, subscriptions: Subscriptions) -> None:
        self.missed = Missed(hub, history, subscriptions)
        self._hub = hub
        self._subscriptions = subscriptions
        self.replayed = 0
        self.gaps = {"expired": 0, "epoch": 0}

    async def run(self, session: Session, position: Position, told: int = -1) -> None:
        """Writes what the stream keeps for the session up to `position`, beginning on each tail where its own place is.

        An event that later ones on other tails have overtaken has no `id:` line: ids on one connection never go back,
        and a client's last id stays that of its present place. It was `told` that what is before that place is lost to
        it: what a subject has dropped just after it is no other gap. Raises BrokerUnavailable; then what was written
        counts, and the next run goes on from there.
        """
        if session.known is None and session.covered >= position.last:
            return  # a new client: generators for each of its tails cost a third of its accepting
        reached, batch, size = session.position, list[bytes](), 0
        sources = [self._due(session, number, tail, position, told) for number, tail in enumerate(session.tails)]
        async for stored in merge(sources):
            late = stored.sequence <= reached
            event_id = None if late else self._subscriptions.event_id(stored.sequence)
            chunk = self._subscriptions.chunk(event_id, stored.header, stored.payload)
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                await self._write(session, batch, stored.sequence)
                batch, size = [], 0
            if session.ending is not None or session.closing():
                return
            last = stored.sequence
        if batch:
            await self._write(session, batch, last)

    async def _due(
        self, session: Session, number: int, tail: str, position: Position, told: int
    ) -> AsyncIterator[Stored]:
        """What the session has not had on one of its tails."""
        start, wide, holes = session.covered, None, self._subscriptions.holes
        if session.known is not None:
            known = session.known.tails[number]
            if isinstance(known, Wide):
                wide, start = known, max(start, session.known.checked)
            else:
                start = max(start, known)
        first = True
        async for stored in self.missed.after(tail, start, position.last):
            full = first and start != told and _fills_its_subject(stored, position.per_subject)
            if full and stored.sequence > start + 1:
                kept = EventId(position.epoch, stored.sequence - 1)
                self.announce(session, Gap("expired", str(EventId(position.epoch, start)), str(kept)))
            first = False
            if session.known is not None and session.seen is not None:
                if not holes.had(session.known, session.tails, stored.tail, stored.sequence):
                    yield stored
            elif wide is None or holes.new(wide, stored.tail, stored.sequence):
                yield stored

    async def room(self, session: Session) -> None:
        """Returns when the client reads, or has ended; one that does not read for long is ended."""
        if not session.paused or session.ending is not None:
            return
        session.room = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await session.room
        except TimeoutError:
            self._hub.end(session, Ending.SLOW)
        finally:
            session.room = None

    async def _write(self, session: Session, batch: list[bytes], reached: int) -> None:
        """Writes `batch`, which brings the session to sequence `reached`, as soon as the client has room for it.

        Only then has it got there: what was read and not written, because NATS went away, has to be read again.
        """
        await self.room(session)
        if session.ending is None and not session.closing():
            session.beats = 0
            session.send(b"".join(batch))
            session.covered = reached
            session.position = max(session.position, reached)
            self._hub.sent += len(batch)
            self.replayed += len(batch)

    def announce(self, session: Session, gap: Gap) -> None:
        """Tells the client what it can't get any more."""
        if session.ending is not None:
            return  # it may have gone while the gap was being found
        self.gaps[gap.reason] += 1
        session.send(frame.chunk(frame.gap(gap.reason, gap.start, gap.end)))


def _fills_its_subject(stored: Stored, most: int) -> bool:
    """Whether this and what follows on its tail may be all that one subject may keep: then others were dropped.

    The stream drops a subject's oldest event for one that is over the limit, and does not say so.
    """
    return 0 < most <= stored.left + 1
