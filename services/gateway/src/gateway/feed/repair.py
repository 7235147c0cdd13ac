"""Repairs tails: live sessions get from the stream what the live feed did not bring them.

One operation for a hole, for a finding of the audit and for a connection to NATS that was lost. The sessions concerned
are held, all in one moment, and how far each of their tails was heard is noted. Then the stream is asked which tails
have more. Who lacks nothing is live at once; the others read, each in stream order over all its tails.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from gateway.feed.life import AGAIN_SECONDS, StreamLife
from gateway.feed.places import UNKNOWN, Places, forget
from gateway.feed.recovery import Recovery
from gateway.feed.survey import survey
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.errors import BrokerUnavailable, TidegateError
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Sessions that read the stream at the same time."""


class Repairs:
    """Starts repairs. It owns their tasks: `aclose` ends them."""

    def __init__(self, bus: Bus, hub: Hub, history: History, life: StreamLife, recovery: Recovery) -> None:
        self._hub = hub
        self._history = history
        self._life = life
        self._recovery = recovery
        self._outbound = bus.subjects.outbound("")
        self._tasks: set[asyncio.Task[None]] = set()
        self._there = asyncio.Event()
        """NATS is there."""
        self._there.set()
        self.holes = 0
        """Tails of live sessions on which something was missing."""
        self._broken = Trouble(log, "a stream could not be brought back, and was ended", level=logging.ERROR)
        bus.on_disconnect.append(self._cut_off)
        bus.on_reconnect.append(self._come_back)

    async def aclose(self) -> None:
        await end(self._tasks)

    def repair(self, sessions: Iterable[Session], reason: str) -> None:
        """Holds those of `sessions` that are live, on the spot, and brings them what they lack.

        Who is held already reads once more by itself if it has to: its audience's `complete_from` says so.
        """
        live = [session for session in sessions if session.held is None and not self._life.over(session)]
        if not live:
            return
        # Before the caller moves what was heard on: a hole is told of before its audience's place passes it.
        places = Places(self._hub.audiences_of(live), self._outbound)
        for session in live:
            if session.ending is None:  # holding one ends the pass, which may end another that is slow
                self._hub.hold(session)
        log.info("repairing sessions after %s", reason, extra={"sessions": len(live)})
        task = spawn(self._mend(live, places), "repairing sessions")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cut_off(self) -> None:
        """NATS is gone, and nothing of the next connection has come: what comes there may have a hole before it."""
        self._there.clear()
        # Who is held already holds events of the old connection. Those of the next one do not follow on them: what is
        # lost in between would be overtaken by what is held after it.
        for session in self._hub.sessions:
            if session.held is not None:
                session.held.break_off()
        self.repair(list(self._hub.sessions), "NATS was away")
        forget(self._hub)

    async def _come_back(self) -> None:
        self._there.set()

    async def _mend(self, sessions: list[Session], places: Places) -> None:
        position, missing = await self._look(sessions, places)
        # Nothing is awaited before each is live or has a task: what the answer says still holds for all of them.
        limit = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                if self._life.over(session):
                    continue
                if position is None:
                    group.create_task(self._read(session, limit, None, places, None))
                    continue
                # Its own place counts too: it may have come later, and read what others on its tail never heard.
                tails = [tail for tail in session.tails if missing[tail] > session.covered]
                if tails:
                    group.create_task(self._read(session, limit, position, places, tails))
                    continue
                self._recovery.expire(session, position, places)
                if not self._recovery.arrive(session, position):
                    group.create_task(self._read(session, limit, None, None, None))
        there = sum(session.ending is None for session in sessions)
        log.info("%d of %d sessions are live again", there, len(sessions))

    async def _look(self, sessions: list[Session], places: Places) -> tuple[Position | None, dict[str, int]]:
        """The stream's position, and for each tail the last sequence up to it that was not heard there; 0 for none.

        No position: NATS tells its position, but can't be read, or is behind. Then each session tries by itself, which
        has its own bounds.
        """
        while True:
            await self._there.wait()
            there = [session for session in sessions if not self._life.over(session)]
            if not there:
                return None, {}
            for session in there:
                if session.held is not None and session.held.broken:
                    self._hub.hold(session)  # before the question: nothing may pass between the two
            starts: dict[str, int] = {}
            for session in there:
                for tail in session.tails:
                    starts[tail] = min(starts.get(tail, UNKNOWN), max(places.start(tail), session.covered))
            position: Position | None = None
            try:
                # The position first. What the survey tells then covers all up to it: an event that comes in between can
                # only make a tail seem to lack more than there is to read.
                position = await self._life.position()
                if position.last < max(session.position for session in there):
                    return None, {}  # a cluster's server that is behind: `Recovery` waits for a better word
                lasts = await survey(self._history, starts, position.last)
                return position, {tail: places.missing(tail, lasts[tail]) for tail in starts}
            except BrokerUnavailable:
                # If NATS is gone again, the next connection has one survey for all once more: one by one, each of
                # thousands that missed nothing would read a page for each of its tails.
                if position is not None and self._there.is_set():
                    return None, {}
            await asyncio.sleep(random.uniform(*AGAIN_SECONDS))

    async def _read(
        self,
        session: Session,
        limit: asyncio.Semaphore,
        position: Position | None,
        places: Places | None,
        tails: list[str] | None,
    ) -> None:
        """Never raises but when it is cancelled: what goes wrong with one session ends that one, and no other."""
        async with limit:
            try:
                await self._recovery.run(session, position, places=places, tails=tails)
            except TidegateError:
                self._hub.end(session, Ending.FEED)
            except Exception as error:
                self._broken.note(type(error).__name__, error)
                self._hub.end(session, Ending.FEED)
