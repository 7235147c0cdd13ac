"""Counts, and tells, what a process finds on NATS that is not its own, or of another release."""

from __future__ import annotations

import logging
from collections import Counter

from tidegate_common.contract.text import mended
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

WORDS = {"job": "message of the queue", "record": "job's record", "dead": "dead job"}


class Foreign:
    """`counts` are by what it was, of WORDS."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        text = "a %s on NATS is not ours, or of another release, and was passed over"
        self._troubles = {what: Trouble(log, text % words) for what, words in WORDS.items()}

    def note(self, what: str, name: str, why: str) -> None:
        """One more was passed over: what is called `name` here can't be used because of `why`."""
        self.counts[what] += 1
        self._troubles[what].note(fields={"found": mended(name)[:100], "why": why[:200]})
