"""What comes from NATS and can't be used: anybody may publish anything. It is counted and told, and others go on.

`Unusable` are messages that a connection could not hand over. `Foreign` are jobs, records and dead jobs that are not
Tidegate's own, or of another release.
"""

from __future__ import annotations

import logging
from collections import Counter

from tidegate_common.contract.subjects import without_name
from tidegate_common.contract.text import mended
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

SUBJECT = "subject"
"""The subject for its answer is not UTF-8."""
HANDLER = "handler"
"""What takes the message could not: its fields, or its payload, are not what they should be."""
SLOW = "slow"
"""What takes the message is too far behind."""


class Unusable:
    """`counts` by reason."""

    def __init__(self) -> None:
        self.counts = {SUBJECT: 0, HANDLER: 0, SLOW: 0}
        self._trouble = Trouble(log, "a message of NATS could not be used and was dropped, others go on")

    def add(self, reason: str, subject: bytes, error: Exception | None = None) -> None:
        """One more on `subject`. `error` is what it brought about."""
        self.counts[reason] += 1
        # Not the error's repr: that of one in decoding holds what was to be decoded.
        self._trouble.note(reason, error, fields={"subject": without_name(shown(subject))})


def shown(subject: bytes) -> str:
    """`subject`, whatever it is, as text."""
    return subject[:256].decode("utf-8", "backslashreplace")


WORDS = {
    "job": "message of the queue",
    "record": "job's record",
    "dead": "dead job",
    "revocation": "revocation",
    "ticket": "ticket",
    "budget": "budget",
}


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
