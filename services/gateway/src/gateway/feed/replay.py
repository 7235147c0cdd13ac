"""Brings a session what the stream has and the session has not, in one sequence order over all its tails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from gateway import frame
from gateway.feed.life import StreamLife
from gateway.feed.places import Places
from gateway.feed.resume import Gap, merge
from gateway.feed.stream_ends import StreamEnds
from gateway.feed.windows import Windows
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from gateway.hub.tails import split
from tidegate_common.bus.events.history import History, Position, Stored
from tidegate_common.bus.jobs.events import belongs
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import EventId

BATCH_BYTES = 32_768
"""Replayed events are joined up to this size into one write."""

ROOM_SECONDS = 30.0
"""How long a replay waits for a client that does not read."""


class Replay:
    """Reads for one session at a time, bounded in memory. It counts what it wrote, and the gaps."""

    def __init__(self, hub: Hub, history: History, life: StreamLife, stream_ends: StreamEnds) -> None:
        self.history = history
        self._hub = hub
        self._life = life
        self._stream_ends = stream_ends
        self._windows = Windows(history)
        self.replayed = 0
        self.gaps = {"expired": 0, "epoch": 0}

    async def run(
        self,
        session: Session,
        position: Position,
        told: int = -1,
        places: Places | None = None,
        tails: Sequence[str] | None = None,
    ) -> None:
        """Writes what the stream keeps for the session up to `position`, on `tails`, or on all that it listens to.

        A newcomer has one place on all tails, `covered`; one that was live has its `places` beside that. The session
        was `told` that what is before that place is lost to it: what a subject has dropped just after it is no other
        gap. Raises BrokerUnavailable; then what was written counts, and the next run goes on from there.
        """
        if places is None and session.covered >= position.last:
            return  # a new client: generators for each of its tails cost a third of its accepting
        batch, size, reached, last = list[bytes](), 0, session.position, 0
        tails = session.tails if tails is None else tails
        sources = [self._due(session, tail, position, told, places) for tail in tails]
        # All tails in one stream order: a client that breaks off in between comes back with the id of the last event
        # that it got, and is not asked what it had on each tail.
        async for stored in merge(sources):
            # Later events on other tails have overtaken it: without an id, the client's last id stays that of its
            # present place. So ids on one connection only grow.
            late = stored.sequence <= reached
            chunk = stored_chunk(None if late else self._life.event_id(stored.sequence), stored.header, stored.payload)
            batch.append(chunk)
            size += len(chunk)
            last = stored.sequence
            if size >= BATCH_BYTES:
                await self._write(session, batch, last)
                batch, size = [], 0
            if self._life.over(session) or session.closing():
                return
        if batch:
            await self._write(session, batch, last)
        # A session whose socket is still full would be closed as slow by the first event that comes live.
        await self._room(session)

    async def _due(
        self, session: Session, tail: str, position: Position, told: int, places: Places | None
    ) -> AsyncIterator[Stored]:
        """What the session has not had on one of its tails."""
        if self._life.over(session):
            return  # another life may have begun while the tail before this one was read: its windows are not ours
        start = session.covered if places is None else max(session.covered, places.start(tail))
        listened = session.tails if session.seen is not None else (tail,)  # several match only if tails overlap
        first = True
        async for stored in self._after(tail, start, position.last):
            full = first and start != told and _fills_its_subject(stored, position.per_subject)
            if full and stored.sequence > start + 1:
                kept = EventId(position.epoch, stored.sequence - 1)
                self.announce(session, Gap("expired", str(EventId(position.epoch, start)), str(kept)))
            first = False
            if places is None or not places.had(listened, stored.tail, stored.sequence):
                yield stored

    def _after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """Events on `tail` over `sequence` up to `upto`, in order; of a filtered tail the job's.

        If several listen to the tail, it is read once for all who come back to it together. Raises BrokerUnavailable.
        """
        audience = self._hub.audience(tail)
        real, job_id = split(tail)
        if audience is not None and len(audience.live) + len(audience.joining) > 1:
            found = self._windows.after(self._life.number, real, sequence, upto)
        else:
            found = self.history.after(real, sequence, upto)
        return only(found, job_id, partial(self._stream_ends.note, tail)) if job_id else found

    async def _room(self, session: Session) -> None:
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
        await self._room(session)
        if not self._life.over(session) and not session.closing():
            session.beats = 0
            session.send(b"".join(batch))
            session.covered = reached
            session.position = max(session.position, reached)
            self._hub.sent += len(batch)
            self.replayed += len(batch)

    def announce(self, session: Session, gap: Gap) -> None:
        """Tells the client what it can't get any more."""
        if self._life.over(session):
            return  # it may have gone while the gap was being found
        self.gaps[gap.reason] += 1
        session.send(frame.chunk(frame.gap(gap.reason, gap.start, gap.end)))


def stored_chunk(event_id: bytes | None, header: bytes, payload: bytes) -> bytes:
    """A stored event as a chunk for sockets; without an id if None is given."""
    event_type = headers.field(header, headers.EVENT_TYPE) or b""
    return frame.chunk(frame.event(event_id, event_type, payload))


async def only(source: AsyncIterator[Stored], job_id: str, over: Callable[[int], None]) -> AsyncIterator[Stored]:
    """The job's events among those of `source`; `over` is called with the sequence of its last one, after it."""
    wanted = job_id.encode()
    async for stored in source:
        if belongs(stored.header, wanted):
            yield stored
            if headers.field(stored.header, headers.JOB_END) is not None:
                over(stored.sequence)


def _fills_its_subject(stored: Stored, most: int) -> bool:
    """Whether this and what follows on its tail may be all that one subject may keep: then others were dropped.

    The stream drops a subject's oldest event for one that is over the limit, and does not say so.
    """
    return 0 < most <= stored.left + 1
