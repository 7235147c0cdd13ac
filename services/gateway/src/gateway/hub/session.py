"""One connection, as the hub sees it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.hub.endings import Ending


class Session:
    """What the hub needs of a connection. A socket's side derives from it, so that one object serves both.

    `send` takes whole HTTP/1.1 chunks, writes them in the order of the calls and never blocks. The socket's side
    sets `paused` while its buffer is over the limit, and calls `on_lost(session)` once, when the connection is gone.
    """

    __slots__ = ("beats", "ending", "held", "on_lost", "paused", "pending", "position", "send", "subjects", "volatile")

    send: Callable[[bytes], object]

    def __init__(self) -> None:
        self.on_lost: Callable[[Session], None] | None = None
        self.paused = False
        self.position = 0
        """Sequence of the last durable event that was handed over; those up to it are repeats."""
        self.pending: bytes | list[bytes] | None = None
        """Chunks that this pass has for the session, joined into one write at its end."""
        self.held: object | None = None
        """Where live events wait while the session is being attached; None when it is live."""
        self.beats = 0
        """Heartbeats since the last event."""
        self.subjects: tuple[str, ...] = ()
        self.volatile: object | None = None
        """Volatile ids seen lately, only where the session's subjects overlap."""
        self.ending: Ending | None = None
        """Why the session ended; None while it is open."""

    def close(self, ending: Ending, farewell: bytes) -> None:
        """Ends the connection: `farewell` (chunks) and the end of the body are written, then it is closed.

        A peer that does not read has a few seconds, then the connection is cut. Does nothing when it has ended.
        """
        raise NotImplementedError

    def age_seconds(self, now: float) -> float:
        """How long the connection has been open, on the event loop's clock."""
        raise NotImplementedError
