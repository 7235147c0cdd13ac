"""Where jobs' own streams end: with the job's last event, whichever way that comes to a session."""

from __future__ import annotations

from gateway.hub.endings import Ending
from gateway.hub.hub import Audience, Hub
from gateway.hub.session import Session

_NEVER = 1 << 64


class StreamEnds:
    """The sequences of jobs' last events, by the filtered tails that somebody listens to."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._ends: dict[str, int] = {}

    def note(self, tail: str, sequence: int) -> None:
        """The last event of the job whose own stream is `tail` has been seen."""
        self._ends[tail] = sequence

    def finish(self, session: Session) -> None:
        """Ends a live session of a job's own stream that has the job's last event."""
        if not self._ends:
            return
        for tail in session.tails:
            if session.held is None and session.position >= self._ends.get(tail, _NEVER):
                self._hub.end(session, Ending.DONE)

    def finish_all(self, audience: Audience) -> None:
        for session in tuple(audience.live):
            self.finish(session)

    def drop(self, tail: str) -> None:
        """Nobody listens any more."""
        self._ends.pop(tail, None)

    def clear(self) -> None:
        """Another life of the stream: sequences mean nothing any more."""
        self._ends.clear()
