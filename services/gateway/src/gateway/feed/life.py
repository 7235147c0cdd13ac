"""Which life of the event stream the gateway's sequences are of, and its end.

A stream that was made anew, or put back from a backup, gives sequences again, for other events. So nothing of it may go
out under an id of the life before. Whoever has a place in that life is held at once, and ended; it comes back with its
last id, and is told what it can't get any more as any other client is (resume.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine
from typing import Any

from gateway.feed.places import forget
from gateway.feed.stream_ends import StreamEnds
from gateway.hub.endings import Ending
from gateway.hub.heartbeat import Heartbeat
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.streams.advisories import on_deletion, on_update
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end, spawn

log = logging.getLogger(__name__)

AGAIN_SECONDS = (0.1, 0.5)
"""Between two questions for the position of a stream that can't be had."""


class StreamLife:
    """The present life. `aclose` ends the tasks that it has started."""

    def __init__(
        self, bus: Bus, hub: Hub, history: History, heartbeat: Heartbeat, stream_ends: StreamEnds, spread_seconds: float
    ) -> None:
        """The connections of a life that is over are ended over `spread_seconds`, as a drain does it."""
        self._hub = hub
        self._history = history
        self._heartbeat = heartbeat
        self._stream_ends = stream_ends
        self._spread = spread_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self.prefix = b""
        """What ids begin with; empty while the stream's epoch is not known."""
        self.number = 0
        """Counts lives: what was asked in an earlier one means nothing in this one."""
        self._leaving: set[Session] = set()
        """Sessions of a life that is over, which are being ended. Nothing is written to them any more."""
        self.highest = 0
        """The last sequence heard on any tail."""
        # NATS says that a stream was deleted before another can be in its place.
        on_deletion(bus, self.end)
        # Its epoch stands in its configuration: the operator's word for a restore is noted there.
        on_update(bus, self.doubt)

    async def aclose(self) -> None:
        await end(self._tasks)

    @property
    def epoch(self) -> str:
        """Its name; empty while it is not known."""
        return self.prefix[:-1].decode()

    def event_id(self, sequence: int) -> bytes:
        """What stands in `id:` for a place in the stream."""
        return b"%b%d" % (self.prefix, sequence)

    def over(self, session: Session) -> bool:
        """Whether `session` is not to get anything any more. Asked anew after each await."""
        return session.ending is not None or session in self._leaving

    async def first_position(self) -> Position:
        """As `position`, for a session that has no place yet, waited for as long as an election may take."""
        while True:
            number = self.number
            position = await self._history.patient_position()
            if number == self.number:
                return self.found(position)

    async def position(self) -> Position:
        """The stream's position at some moment after this call. Raises BrokerUnavailable."""
        # As they are before the question: an event that comes while it is under way may be newer than the answer.
        number, highest = self.number, self.highest
        position = await self._history.position()
        if number != self.number:
            # The answer may be older than the end: taken for the new life's, it would bring the old epoch back.
            raise BrokerUnavailable("the stream was made anew while it was asked for its position")
        if position.last < highest and not position.copies:
            # It has the name that it had, and has lost its end, with a disk. In a cluster this may be the word of a
            # server that takes itself for the leader: there each session looks at its own place (recovery.py).
            self.end()
        return self.found(position)

    def found(self, position: Position) -> Position:
        """The stream's position, on the spot: what is asked later is also told later."""
        if self.prefix and position.epoch != self.epoch:
            self.end()
        self.prefix = b"%b-" % position.epoch.encode()
        return position

    def doubt(self) -> None:
        """The stream may be another than before: asks it."""
        self._spawn(self._ask(), "asking for the stream's position")

    async def _ask(self) -> None:
        with contextlib.suppress(BrokerUnavailable):  # when NATS is back, the repair asks
            await self.position()

    def end(self) -> None:
        """This life is over. From inside the read of the connection: nothing of the next one has been handed on yet."""
        self.number += 1  # first: from now on, answers to earlier questions are refused
        self.prefix, self.highest = b"", 0
        self._stream_ends.clear()
        leaving = []
        for session in list(self._hub.sessions):
            if self.over(session):
                continue
            held = self._hub.hold(session)  # anew: what is held may carry ids of the old life
            # Who has no place yet has got nothing of this life. It stays, and is given one in the next.
            if session.position >= 0:
                held.break_off()
                leaving.append(session)
        forget(self._hub)
        if leaving:
            log.info("the event stream is another: its clients are told to come back", extra={"sessions": len(leaving)})
            self._leaving.update(leaving)
            self._spawn(self._let_go(leaving), "ending the streams of a life that is over")

    async def _let_go(self, sessions: list[Session]) -> None:
        """Ends them when there is a stream for them to come back to: refused with 503, an EventSource gives up."""
        while True:
            try:
                await self.position()
                break
            except BrokerUnavailable:
                await asyncio.sleep(random.uniform(*AGAIN_SECONDS))
        await self._heartbeat.end_spread(sessions, self._spread, Ending.FEED)
        self._leaving.difference_update(sessions)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = spawn(work, what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
