"""Messages that came from NATS and could not be used: anybody may publish anything. Others go on, these are counted."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

SAY_SECONDS = 60.0
"""Each reason is said no oftener."""

SUBJECT = "subject"
"""The subject, or the one for its answer, is not UTF-8 where it has to be read."""
HANDLER = "handler"
"""What takes the message could not: its fields, or its payload, are not what they should be."""
SLOW = "slow"
"""What takes the message is too far behind."""


class Unusable:
    """`counts` by reason."""

    def __init__(self) -> None:
        self.counts = {SUBJECT: 0, HANDLER: 0, SLOW: 0}
        self._said: dict[str, float] = {}

    def add(self, reason: str, subject: bytes, error: Exception | None = None) -> None:
        """One more on `subject`. `error` is what it brought about."""
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        now = time.monotonic()
        if now - self._said.get(reason, float("-inf")) < SAY_SECONDS:
            return
        self._said[reason] = now
        log.warning(
            "a message of NATS could not be used (%s): it was dropped, others go on",
            reason,
            extra={"subject": shown(subject), "count": count, "error": "" if error is None else repr(error)},
            exc_info=error,
        )


def shown(subject: bytes) -> str:
    """`subject`, whatever it is, for a log line."""
    return subject[:256].decode("utf-8", "backslashreplace")
