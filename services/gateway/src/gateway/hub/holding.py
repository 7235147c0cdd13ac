"""What a session keeps for a while only: live events that must wait, its place on each tail, volatile ids seen."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Wide(NamedTuple):
    """What was heard on a tail with wildcards: all up to `base`, and on each of `subjects` all up to its sequence."""

    base: int
    subjects: dict[bytes, int]


class Known(NamedTuple):
    """What a live session had of the stream when it was held: its replay begins there, on each tail at its place."""

    upto: int
    """The feed had come to here: what has left the stream since, up to this, was heard."""
    checked: int
    """Up to this sequence nothing is missing on any tail of the gateway: the audit has seen to it."""
    tails: tuple[int | Wide, ...]
    """For each of the session's tails: up to which sequence nothing is missing."""


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
        """Keeps an event; False where it is volatile and there is no room. A durable one that finds none breaks."""
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
