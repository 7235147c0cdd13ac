"""What befalls all sessions, or all of a tail, at once: NATS was away, the stream is another, an event is missing.

Each is held, with what it had on each of its tails at that moment, and then gets its place again in the one way that
there is (attachment.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable

from gateway.feed.subscriptions import Subscriptions
from gateway.hub.endings import Ending
from gateway.hub.holding import Wide
from gateway.hub.hub import Audience, Hub
from gateway.hub.session import Session
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Position
from tidegate_common.bus.streams.advisories import on_deletion, on_update
from tidegate_common.errors import BrokerUnavailable, TidegateError
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Sessions that read the stream at the same time."""


class Repairs:
    """Holds sessions and brings them back. It owns the tasks that it starts: `aclose` ends them."""

    def __init__(
        self,
        bus: Bus,
        hub: Hub,
        history: History,
        subscriptions: Subscriptions,
        catch_up: Callable[[Session], Awaitable[None]],
    ) -> None:
        """`catch_up` makes a held session live. Raises TidegateError where it can't."""
        self._hub = hub
        self._history = history
        self._subscriptions = subscriptions
        self._catch_up = catch_up
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[Session] = []
        self._doubting: asyncio.Task[None] | None = None
        self._doubted = False
        """Since the stream was asked for its place last."""
        self._broken = Trouble(log, "a stream could not be brought back, and was ended", level=logging.ERROR)
        self.holes = 0
        """Holes in the live feed that were mended."""
        subscriptions.holes.on_hole = self._mend
        subscriptions.on_restart = self._restart
        subscriptions.on_doubt = self._doubt
        # Whatever comes after this is of another life: it must not go out under an id of this one.
        on_deletion(bus, self._restart)
        on_update(bus, self._doubt)
        bus.on_disconnect.append(self._cut_off)
        bus.on_reconnect.append(self._come_back)

    async def aclose(self) -> None:
        """Ends the tasks that bring sessions back."""
        await end(self._tasks)
        if self._doubting is not None:
            await end([self._doubting])

    def found(self, position: Position) -> None:
        """The stream was asked for its place just now. If it is another than before, everyone has to find theirs in it.

        It may be the same by its name and have lost its end, with a disk: then its sequences go back. In a cluster that
        may be the word of a server that takes itself for the leader: there each session makes sure by itself.
        """
        subscriptions = self._subscriptions
        before, subscriptions.epoch = subscriptions.epoch, position.epoch
        if before not in ("", position.epoch) or (position.last < subscriptions.placed and not position.copies):
            self._restart()
        subscriptions.placed = position.last

    def _mend(self, audience: Audience) -> None:
        """The feed has left events out: those who listen are held, before anything later is handed over, and read them.

        A session that is being attached reads the stream once more by itself.
        """
        self.holes += 1
        for session in audience.joining:
            if session.held is not None:
                session.held.break_off()
        self._start(self._hold(list(audience.live)), "rejoining sessions after a hole in the feed")

    def _cut_off(self) -> None:
        """NATS is gone: what comes on the next connection may have a hole before it."""
        self._waiting += self._hold(list(self._hub.sessions))
        self._subscriptions.forget()

    async def _come_back(self) -> None:
        """NATS is back: every session that was live gets its place again, in a task that outlives this callback."""
        sessions, self._waiting = self._waiting, []
        self._start(sessions, "rejoining sessions after NATS was away")

    def _restart(self) -> None:
        """Sequences went back: an event came late, or the stream is another. All find their places anew."""
        sessions = self._hold(list(self._hub.sessions))
        self._subscriptions.forget()
        self._start(sessions, "rejoining sessions, the stream's sequences went back")

    def _doubt(self) -> None:
        """An event came whose sequence the stream had already: it was late, or the stream was made anew. Asks which."""
        self._doubted = True
        if self._doubting is None or self._doubting.done():
            self._doubting = spawn(self._ask(), "asking for the stream's place")

    async def _ask(self) -> None:
        while self._doubted:  # an answer that is on its way may be older than the doubt
            self._doubted = False
            with contextlib.suppress(BrokerUnavailable):  # when NATS is back, all are placed anew
                self.found(await self._history.position())

    def _hold(self, sessions: Iterable[Session]) -> list[Session]:
        """Holds `sessions`, each with what it had; who was held already reads again. Gives those that were live."""
        shared: dict[str, Wide] = {}
        live = []
        for session in sessions:
            if session.ending is not None:
                continue
            if session.held is None:
                upto = max(session.position, self._subscriptions.highest)
                session.known = self._subscriptions.holes.known(session.tails, upto, shared)
                self._hub.hold(session)
                live.append(session)
            assert session.held is not None
            session.held.break_off()
        return live

    def _start(self, sessions: list[Session], reason: str) -> None:
        if sessions:
            log.info(reason, extra={"sessions": len(sessions)})
            task = spawn(self._rejoin(sessions), "bringing streams back")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _rejoin(self, sessions: list[Session]) -> None:
        limit = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(self._bring_back(session, limit))
        there = sum(session.ending is None for session in sessions)
        log.info("%d of %d sessions are live again", there, len(sessions))

    async def _bring_back(self, session: Session, limit: asyncio.Semaphore) -> None:
        """Never raises but when it is cancelled: what goes wrong with one session ends that one, and no other."""
        async with limit:
            if session.ending is not None:
                return
            try:
                self._hub.hold(session)  # anew: what came meanwhile is in the stream, and the hold is bounded
                await self._catch_up(session)
            except TidegateError:
                self._hub.end(session, Ending.FEED)
            except Exception as error:
                self._broken.note(type(error).__name__, error)
                self._hub.end(session, Ending.FEED)
