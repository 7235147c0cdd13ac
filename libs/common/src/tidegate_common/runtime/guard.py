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

EXTENSION = "tidegate.bodies"
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

    head_bytes: int = 32_768
    head_seconds: float = 10
    """From the accepting, or a later request's first byte, to the end of the request's head."""
    body_seconds: float = 30
    """For each PIECE_BYTES of a body, or the rest of it."""
    body_total_seconds: float = 600
    keep_alive_seconds: float = 75
    sockets: int = 4096
    bodies_bytes: int = 64 << 20


class Bodies:
    """How much of bodies that are not there as a whole the process holds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.refused = 0

    def take(self, size: int) -> None:
        """Raises Unavailable where there is no room for `size` bytes more."""
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


def _protocol(transport: asyncio.Transport) -> Any:
    return cast(Any, transport.get_protocol())
