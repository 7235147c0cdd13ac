"""Counts, and tells, what a process finds on NATS that is not its own, or of another release."""

from __future__ import annotations

import logging
import time
from collections import Counter

log = logging.getLogger(__name__)

SAY_SECONDS = 60.0
"""Between two lines about one kind of thing: there may be thousands."""


WORDS = {"job": "message of the queue", "record": "job's record", "dead": "dead job"}


class Foreign:
    """`counts` are by what it was, of WORDS."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said: dict[str, float] = {}

    def note(self, what: str, name: str, why: str) -> None:
        """One more was passed over: what is called `name` here can't be used because of `why`."""
        self.counts[what] += 1
        now = time.monotonic()
        if now - self._said.get(what, float("-inf")) < SAY_SECONDS:
            return
        self._said[what] = now
        log.warning(
            "a %s on NATS is not ours, or of another release, and was passed over: %.100r: %.200s (%d so far)",
            WORDS[what],
            name,
            why,
            self.counts[what],
        )
