"""Publishes that were refused: counted by reason, said when it begins and when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

AWAY = "away"
"""No connection to NATS."""

NO_LEADER = "no_leader"
"""The stream has no leader, or is gone, for longer than is waited for."""

UNCONFIRMED = "unconfirmed"
"""NATS took it and did not say that it is stored: its disk is full, or it hangs."""

STORAGE_FULL = "storage_full"
"""A limit of NATS's storage is reached: of the server or of the account."""

STREAM_FULL = "stream_full"
"""The stream's own limits, if it discards what is new: the job queue's, by its making."""

STREAM_REFUSES = "stream_refuses"
"""The stream is sealed, or not as Tidegate makes it."""

TOO_MANY_WAITING = "too_many_waiting"
"""No place was left among the requests that wait."""

REASONS = (AWAY, NO_LEADER, UNCONFIRMED, STORAGE_FULL, STREAM_FULL, STREAM_REFUSES, TOO_MANY_WAITING)

TEXTS = {
    AWAY: "NATS is away",
    NO_LEADER: "the stream has no leader",
    UNCONFIRMED: "NATS does not confirm that it stores: look at its log and its disk, which may be full",
    STORAGE_FULL: "NATS's storage is full: free its disk, or raise the limits of the server or the account",
    STREAM_FULL: "the stream is full and discards what is new",
    STREAM_REFUSES: "the stream refuses: it is not as Tidegate makes it",
}
"""What an operator reads."""

NEEDS_CARE = frozenset({UNCONFIRMED, STORAGE_FULL, STREAM_REFUSES})
"""Reasons that show nowhere else: the stream answers questions all the while."""


_STORE_FAILED = 10077
"""Its words say why: the stream's own limits, by these words, or the disk."""
_OWN_LIMITS = ("maximum messages", "maximum bytes", "maximum per subject")
_STREAM_FULL = 10122
"""The limit of messages, found before the message was put up for storing."""
_STORAGE_FULL = {10002, 10023, 10028, 10047}
"""Limits of the account, of the server, and what memory and disk have left."""


def reason_of(code: int, words: str) -> str:
    """Which of the reasons JetStream's error is, by its code and its words."""
    if code == _STREAM_FULL or any(each in words for each in _OWN_LIMITS):
        return STREAM_FULL
    return STORAGE_FULL if code in _STORAGE_FULL or code == _STORE_FAILED else STREAM_REFUSES


QUIET_SECONDS = 10.0
"""Refusals with less between them are one spell: a queue that is full is so again and again."""


class Refusals:
    """One process's, over all of its streams."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.counts = dict.fromkeys(REASONS, 0)
        self._now: dict[str, _Spell] = {}
        """By stream."""

    def refused(self, stream: str, reason: str, words: str = "", number: int = 1) -> None:
        """`number` publishes to `stream` were refused; `words` are NATS's own."""
        self.counts[reason] += number
        if reason not in TEXTS:
            return
        spell = self._now.get(stream)
        if spell is None or spell.reason != reason:
            before = 0 if spell is None else spell.number
            spell = self._now[stream] = _Spell(reason, words, before, self._clock())
            # The job queue is full in the ordinary course of things.
            level = logging.INFO if reason == STREAM_FULL else logging.WARNING
            log.log(level, "publishes are refused: %s", spell.text, extra={"stream": stream, "reason": reason})
        spell.number += number
        spell.last = self._clock()
        spell.present = True

    def stored(self, stream: str) -> None:
        """Something was stored in `stream`."""
        if self._now and (spell := self._now.get(stream)) is not None:
            if spell.present:
                spell.present, spell.back = False, self._clock()
            if self._clock() >= spell.last + QUIET_SECONDS:
                self._end(stream)

    def of(self, stream: str) -> str | None:
        """Why publishes to `stream` are refused at present, if its leader says nothing of it."""
        spell = self._now.get(stream)
        return spell.text if spell is not None and spell.present and spell.reason in NEEDS_CARE else None

    @property
    def lasting(self) -> bool:
        """Whether any are refused at present for such a reason."""
        return any(map(self.of, self._now))

    def over(self) -> None:
        """NATS stores again: what still refuses says so with its next publish."""
        for stream in list(self._now):
            if self.of(stream):
                self._now[stream].back = self._clock()
                self._end(stream)

    def _end(self, stream: str) -> None:
        spell = self._now.pop(stream)
        log.info(
            "publishes are stored again after %.0f s, %d refused meanwhile",
            spell.back - spell.since,
            spell.number,
            extra={"stream": stream, "reason": spell.reason},
        )


class _Spell:
    """A time of one reason. `present` until something is stored, `back` when that was."""

    def __init__(self, reason: str, words: str, number: int, now: float) -> None:
        self.reason = reason
        self.text = TEXTS[reason] + (f" ({words})" if words else "")
        self.number = number
        self.present = True
        self.since = self.last = self.back = now
