"""What a live session had when it was held."""

from __future__ import annotations

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
