"""What all connections of a process share: how many there may be, how slow they may be, what their bodies may hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, cast

import msgspec

from tidegate_common.errors import Unavailable
from tidegate_common.runtime.deadlines import Deadlines
from tidegate_common.runtime.files import room_for
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

BODIES = "tidegate.bodies"
"""Under this name each request's scope has the process's `Bodies`."""

ABORT = "tidegate.abort"
"""Under this name, a function that cuts the request's connection off."""

PIECE_BYTES = 65_536
"""So much of a body has to come in each `body_seconds`."""

DISCARD_BYTES = 64 << 20
"""So much of what nobody wants is read, for its sender to come to the answer."""

HTTP_REFUSED = "Connections and requests that a limit has ended"
"""What the metric of `Guard.refused` counts."""

CALM_SHARE = 0.9
"""Below this share of the sockets it is said that there is room again."""


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a process's connections; times in seconds."""

    head_bytes: int
    head_seconds: float
    """From the accepting, or a later request's first byte, to the end of the request's head."""
    body_seconds: float
    """For each PIECE_BYTES of a body, or the rest of it."""
    body_total_seconds: float = 600
    keep_alive_seconds: float
    sockets: int
    bodies_bytes: int


class Bodies:
    """How much of bodies that are not there as a whole the process holds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.refused = 0

    def take(self, size: int) -> None:
        """Raises Unavailable if there is no room for `size` bytes more."""
        if self.held + size > self.most:
            self.refused += 1
            raise Unavailable("this process holds all the half-read bodies that it may", retry_after=5)
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


class Guard:
    """The limits and what they are held against. A connection is known by its transport, whichever protocol it has.

    A protocol of such a transport has `head_late`, `body_late` and `idle_late`.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self._sockets = room_for(limits.sockets)
        self.heads = Deadlines(limits.head_seconds, lambda transport: _protocol(transport).head_late())
        self.pieces = Deadlines(limits.body_seconds, lambda transport: _protocol(transport).body_late())
        self.totals = Deadlines(limits.body_total_seconds, lambda transport: _protocol(transport).body_late())
        self.idle = Deadlines(limits.keep_alive_seconds, lambda transport: _protocol(transport).idle_late())
        self.bodies = Bodies(limits.bodies_bytes)
        self._refused = dict.fromkeys(("sockets", "silent", "head_late", "head_large", "body_late", "invalid"), 0)
        self._full = Trouble(
            log,
            f"all {self._sockets} sockets are taken: further connections are closed; see TIDEGATE_MAX_SOCKETS",
            "there is room for connections again",
        )
        self.stopping = False
        """Set when the process begins to stop: what has been answered is not waited for long."""

    @property
    def refused(self) -> dict[str, int]:
        """Connections and requests that were ended, by the limit."""
        return {**self._refused, "bodies": self.bodies.refused}

    def count(self, reason: str) -> None:
        self._refused[reason] += 1

    def admits(self, connections: Collection[Any]) -> bool:
        """Whether there may be one more beside `connections`."""
        if len(connections) >= self._sockets:
            self.count("sockets")
            self._full.note()
            return False
        if self._full.lasting and len(connections) < self._sockets * CALM_SHARE:
            self._full.over()
        return True

    def forget(self, transport: asyncio.Transport) -> None:
        """No time runs any more for `transport`."""
        for deadlines in (self.heads, self.pieces, self.totals, self.idle):
            deadlines.stop(transport)


class TimeLimit:
    """The one limit of time that a connection is under at the moment."""

    __slots__ = ("_guard", "_piece", "_transport", "of")

    def __init__(self, guard: Guard, transport: asyncio.Transport) -> None:
        """It begins with that of a head."""
        self._guard = guard
        self._transport = transport
        self._piece = 0
        self.of: Deadlines | None = None
        """Which of the guard's it is."""
        self.set(guard.heads)

    def set(self, deadlines: Deadlines | None) -> None:
        """Another one of the guard's, or none; if it is the same, its time goes on."""
        guard, transport, before = self._guard, self._transport, self.of
        if deadlines is before:
            return
        if before is not None:
            before.stop(transport)
        if before is guard.pieces:
            guard.totals.stop(transport)
        self.of = deadlines
        if deadlines is not None:
            deadlines.start(transport)
        if deadlines is guard.pieces:
            self._piece = 0
            guard.totals.start(transport)

    def restart(self) -> None:
        """Begins its time anew."""
        if self.of is not None:
            self.of.restart(self._transport)

    def read(self, size: int) -> None:
        """So many bytes have come: each PIECE_BYTES of a body have their own time."""
        if self.of is self._guard.pieces:
            self._piece += size
            if self._piece >= PIECE_BYTES:
                self._piece = 0
                self.restart()


class HeadSize:
    """Whether a connection's head, or its trailers, are over the limit."""

    __slots__ = ("_fields", "_most", "_moved", "_unparsed")

    def __init__(self, most: int) -> None:
        self._most = most
        self._fields = 0
        self._unparsed = 0
        self._moved = False

    def begin(self) -> None:
        """Another head, or trailers."""
        self._fields = 0

    def field(self, size: int) -> bool:
        """A part of it is there as a whole. Gives whether it is too large with that."""
        self._fields += size
        return self._fields > self._most

    def begin_read(self) -> None:
        self._moved = False

    def moved(self) -> None:
        """The parser has come to another part of a request."""
        self._moved = True
        self._unparsed = 0

    def read(self, size: int) -> bool:
        """All of a read is parsed. Gives whether too much has come that moved nothing on.

        httptools hands over a field only when it is whole: an endless one, in a head, in trailers or in a chunk's line,
        is counted by the bytes that came.
        """
        if not self._moved:
            self._unparsed += size
        return self._unparsed > self._most


def _protocol(transport: asyncio.Transport) -> Any:
    return cast(Any, transport.get_protocol())
