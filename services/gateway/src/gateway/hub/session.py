"""One connection, as the hub sees it, and what it keeps for a while only."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import Callable

from gateway.hub.endings import Ending
from tidegate_common.contract.principal import OPEN


class Held:
    """Live events in arrival order, while what came before them is read from the stream. Bounded in bytes.

    `broken` says that the events held are not all that came: the stream has to be read again.
    """

    __slots__ = ("_limit", "_size", "broken", "events")

    def __init__(self, limit: int) -> None:
        self.events: list[tuple[int | None, bytes]] = []
        """(sequence, or None for a volatile event; chunk)."""
        self.broken = False
        self._limit = limit
        self._size = 0

    def add(self, sequence: int | None, chunk: bytes) -> bool:
        """Keeps an event; False if it is volatile and there is no room. A durable one that finds none breaks."""
        if self.broken:
            return sequence is not None
        self._size += len(chunk)
        if self._size <= self._limit:
            self.events.append((sequence, chunk))
            return True
        if sequence is None:
            self._size -= len(chunk)
            return False
        self.break_off()
        return True

    def break_off(self) -> None:
        """Forgets what is held: durable events among it are in the stream."""
        self.broken = True
        self.events.clear()


class Seen:
    """The last volatile ids of a session whose tails overlap, so that it hears each event once."""

    __slots__ = ("_ids", "_order")

    def __init__(self, most: int = 256) -> None:
        self._ids: set[bytes] = set()
        self._order: deque[bytes] = deque(maxlen=most)

    def has(self, volatile_id: bytes) -> bool:
        return volatile_id in self._ids

    def first_time(self, volatile_id: bytes) -> bool:
        if volatile_id in self._ids:
            return False
        if len(self._order) == self._order.maxlen:
            self._ids.discard(self._order[0])
        self._order.append(volatile_id)
        self._ids.add(volatile_id)
        return True


class Session:
    """What the hub needs of a connection. A socket's side derives from it, so that one object serves both.

    `send` takes whole HTTP/1.1 chunks, writes them in the order of the calls and never blocks. The socket's side
    calls `set_paused` when its buffer goes over and under its limit, and `lost` once, when the connection is gone.
    """

    __slots__ = (
        "address",
        "beats",
        "began",
        "covered",
        "ending",
        "held",
        "on_lost",
        "paused",
        "pending",
        "position",
        "principal",
        "room",
        "seen",
        "send",
        "tails",
    )

    send: Callable[[bytes], object]

    connection = True
    """Whether a client's connection is behind it. Those are counted, and ended in a drain; a reader of ours is not."""

    def __init__(self) -> None:
        self.on_lost: Callable[[Session], None] | None = None
        self.address = ""
        """Who is connected: what the per-address limit counts by."""
        self.principal = OPEN
        """Who that is, as they said when they connected."""
        self.tails: tuple[str, ...] = ()
        """What the session listens to."""
        self.position = -1
        """Sequence of the last durable event that was handed over; those up to it are repeats. -1: has no place yet."""
        self.began = 0
        """The position that the client was told when it connected, or by a gap: what came before it is not its own."""
        self.covered = 0
        """Nothing up to this sequence is missing on any tail: it was replayed, or came before the session did."""
        self.pending: bytes | list[bytes] | None = None
        """Chunks that this pass has for the session, joined into one write at its end."""
        self.held: Held | None = None
        """Where live events wait while what came before them is being read; None when the session is live."""
        self.seen: Seen | None = None
        """Volatile ids seen lately, only if the session's tails overlap."""
        self.beats = 0
        """Heartbeats since the last event."""
        self.paused = False
        """The socket's buffer is over its limit."""
        self.room: Future[None] | None = None
        """Done when a paused session may be written to again, or has ended."""
        self.ending: Ending | None = None
        """Why the session ended; None while it is open."""

    def set_paused(self, paused: bool) -> None:
        """Called by the socket's side as its buffer goes over and under its limit."""
        self.paused = paused
        if not paused and self.room is not None and not self.room.done():
            self.room.set_result(None)

    def lost(self) -> None:
        """Called by the socket's side when the connection is gone, for whatever reason. Idempotent."""
        if self.ending is None:
            self.ending = Ending.CLIENT
        called, self.on_lost = self.on_lost, None
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        if called is not None:
            called(self)

    size = 0
    """Bytes of its request that are kept while it waits to be attached."""

    def gone(self) -> Future[None]:
        """Done when the session has ended. Only while nothing has been written to it yet."""
        if self.room is None:
            self.room = get_running_loop().create_future()
        if self.ending is not None and not self.room.done():
            self.room.set_result(None)
        return self.room

    def closing(self) -> bool:
        """Whether the connection is lost already, though `lost` has not been called yet. For long writes to ask."""
        return False

    def close(self, ending: Ending, farewell: bytes) -> None:
        """Ends the connection: `farewell` (chunks) and the end of the body are written, then it is closed.

        A peer that does not read has a few seconds, then the connection is cut. Does nothing when it has ended.
        """
        raise NotImplementedError

    def age_seconds(self, now: float) -> float:
        """How long the connection has been open, on the event loop's clock."""
        raise NotImplementedError
