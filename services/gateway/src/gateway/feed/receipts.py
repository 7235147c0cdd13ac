"""To how many connections an event was written, for events that ask for it.

Counted at the end of the pass, after the hub's flush: what was put beside a session and never written does not count.
Sessions that are joining count once they are live, if that is soon enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.hub.hub import Audience, Hub
from gateway.hub.session import Held, Session

KEEP_SECONDS = 10.0
"""How long a count is remembered: longer than a publisher tries for."""

KEEP = 10_000
"""Counts that are remembered at most."""

PATIENCE_SECONDS = 0.5
"""How long an answer waits for sessions that are joining, or for an event that is not here yet."""

LOOK_SECONDS = 0.02
"""How often a waiting answer looks whether it can be given."""


class Tally:
    """The count of one event."""

    __slots__ = ("began", "count", "handed", "joining", "sequence")

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0
        self.sequence: int | None = None
        """The event's place in the stream; None for a volatile one."""
        self.handed: dict[Session, None] = {}
        """Live sessions that get the event in this pass, each once: by overlapping tails it comes to some twice."""
        self.joining: dict[Session, Held] = {}
        """Sessions whose live events are being held, with what holds them."""

    def end_pass(self) -> None:
        """The hub has flushed."""
        self.count += sum(session.ending is None for session in self.handed)
        self.handed.clear()

    def settled(self) -> bool:
        """Counts the sessions that have joined; whether nothing can be added any more."""
        for session, held in list(self.joining.items()):
            if session.ending is not None:
                del self.joining[session]
            elif session.held is None:
                del self.joining[session]
                self.count += self._was_due(session, held)
        return not self.handed and not self.joining

    def _was_due(self, session: Session, held: Held) -> bool:
        # A durable event after the place where the session began came from the hold or from the replay.
        # A volatile one is lost if the hold was broken off.
        return session.began < self.sequence if self.sequence is not None else not held.broken


class Receipts:
    """The counts of late, by receipt id."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._tallies: dict[bytes, Tally] = {}

    def durable(self, receipt_id: bytes, audience: Audience, sequence: int, chunk: bytes) -> None:
        """Hands an event of the stream to the hub, and counts."""
        tally = self._tally(receipt_id)
        tally.sequence = sequence
        # The same that the hub asks: a session that is past the sequence has had it, or is not due it.
        tally.handed |= {session: None for session in audience.live if session.position < sequence}
        for session in audience.joining:
            if session.held is not None:
                tally.joining[session] = session.held
        self._hub.durable(audience, sequence, chunk)
        self._loop.call_soon(tally.end_pass)  # the flush comes before it: at the end of this read, or scheduled earlier

    def volatile(self, receipt_id: bytes, audience: Audience, volatile_id: bytes, chunk: bytes) -> None:
        """Hands a volatile event to the hub, and counts."""
        tally = self._tally(receipt_id)
        unseen = [session for session in audience.live if not session.paused and _unseen(session, volatile_id)]
        tally.handed |= dict.fromkeys(unseen)
        self._hub.volatile(audience, volatile_id, chunk)
        for session in audience.joining:
            held = session.held
            if held is not None and held.events and held.events[-1][1] is chunk:
                tally.joining[session] = held
        self._loop.call_soon(tally.end_pass)

    def ask(self, receipt_id: bytes, tail: str, reply: Callable[[int], None]) -> None:
        """Calls `reply` with the event's count, at once if it is settled, else within PATIENCE_SECONDS.

        An event that nobody here listens to counts 0 at once; otherwise it may still be on its way (in a cluster it
        does not come by the way of the question).
        """
        self._look(receipt_id, tail, reply, self._loop.time() + PATIENCE_SECONDS)

    def _look(self, receipt_id: bytes, tail: str, reply: Callable[[int], None], until: float) -> None:
        tally = self._tallies.get(receipt_id)
        settled = tally.settled() if tally is not None else not self._hub.listening(tail)
        if settled or self._loop.time() >= until:
            reply(tally.count if tally is not None else 0)
        else:
            self._loop.call_later(LOOK_SECONDS, self._look, receipt_id, tail, reply, until)

    def _tally(self, receipt_id: bytes) -> Tally:
        tally = self._tallies.get(receipt_id)
        if tally is None:
            now = self._loop.time()
            while self._tallies:
                oldest = next(iter(self._tallies))
                if len(self._tallies) < KEEP and self._tallies[oldest].began >= now - KEEP_SECONDS:
                    break
                del self._tallies[oldest]
            tally = self._tallies[receipt_id] = Tally(now)
        return tally


def _unseen(session: Session, volatile_id: bytes) -> bool:
    return session.seen is None or not session.seen.has(volatile_id)
