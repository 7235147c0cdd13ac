"""Sessions end when what says who they are is good no more, and are told of it before. One timer for all of them.

A session stands beside the second at which something is due for it, so that coming and going cost one dictionary each,
and those that have gone leave nothing. A heap of seconds would keep theirs; to look at all the seconds there are takes
0.1 ms for 10,000.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.session import Session

NOTICE_SECONDS = 30
"""So long before the end a session is told of it."""

NOTICE_SPREAD_SECONDS = 10
"""And up to so much earlier, another time for each: those of one second would all ask their application at once."""

EVERY_SECONDS = 1.0

AT_ONCE = 200
"""Sessions that are told, or ended, before the loop gets another turn."""


class Expiry:
    """Of the sessions of one hub whose principal has an end."""

    def __init__(self, hub: Hub, clock: Callable[[], float] = time.time) -> None:
        """`clock` counts as the tokens do, in Unix seconds."""
        self._hub = hub
        self._clock = clock
        self._due: dict[int, dict[Session, None]] = {}
        """By the second at which it is their turn."""

    def keep(self, session: Session) -> None:
        """The session's response head is out, and it ends with its principal.

        One that has not so long any more gets no notice. Its client has just said who it is, and would come back with
        the same token at once, for ever.
        """
        expires = session.principal.expires
        if expires:
            notice = _notice(session)
            self._put(session, notice if notice > self._clock() else expires)

    def forget(self, session: Session) -> None:
        """`session` is gone, or gets another principal."""
        expires = session.principal.expires
        if expires:
            self._take(session, _notice(session))
            self._take(session, expires)

    @property
    def waiting(self) -> int:
        """Sessions that have an end before them."""
        return sum(map(len, self._due.values()))

    async def run(self) -> None:
        """Turns for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.turn()

    async def turn(self) -> None:
        """What is due by now."""
        now, acted = self._clock(), 0
        for second in sorted(second for second in self._due if second <= now):
            while sessions := self._due.get(second):
                session, _ = sessions.popitem()
                if not sessions:
                    del self._due[second]
                if session.ending is None:
                    self._act(session, now)
                acted += 1
                if not acted % AT_ONCE:
                    await asyncio.sleep(0)

    def _act(self, session: Session, now: float) -> None:
        left = session.principal.expires - now
        if left <= 0:
            self._hub.end(session, Ending.TOKEN_EXPIRED)
            return
        self._put(session, session.principal.expires)
        if not session.paused:
            session.send(frame.chunk(frame.expiring(math.ceil(left))))

    def _put(self, session: Session, moment: float) -> None:
        self._due.setdefault(math.ceil(moment), {})[session] = None

    def _take(self, session: Session, moment: float) -> None:
        second = math.ceil(moment)
        sessions = self._due.get(second)
        if sessions is not None:
            sessions.pop(session, None)
            if not sessions:
                del self._due[second]


def _notice(session: Session) -> float:
    """When it is told, the same each time it is asked for."""
    # As in heartbeat.py: a prime spreads the addresses of objects.
    share = id(session) // 64 % 97 / 97
    return session.principal.expires - NOTICE_SECONDS - NOTICE_SPREAD_SECONDS * share
