"""How long to wait before the next attempt."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 86_400.0
"""No server keeps a client away for longer, whatever number it sends."""

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class BackOff:
    """Full jitter over a window that doubles from 0.5 s to 30 s. `random` gives numbers from 0 to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.failures = 0
        self._random = random

    def reset(self) -> None:
        """The stream was of use: the window is small again."""
        self.failures = 0

    def next(self, at_least: float) -> float:
        """Seconds to wait: `at_least`, and the jitter on top, so that clients with the same bound spread too."""
        window: float = min(CAP_SECONDS, BASE_SECONDS * (1 << min(self.failures, 16)))
        self.failures += 1
        return at_least + self._random() * window


_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = [
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) (?P<month>[A-Z][a-z]{{2}}) (?P<year>\d{{4}}) {_TIME} GMT", re.ASCII),
    re.compile(rf"[A-Z][a-z]+day, (?P<day>\d\d)-(?P<month>[A-Z][a-z]{{2}})-(?P<year>\d\d) {_TIME} GMT", re.ASCII),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})", re.ASCII),
]
"""The three dates of RFC 9110, 5.6.7. The standard library's reader takes more, and one of these for local time."""


def bounded(digits: str, unit_seconds: float = 1.0) -> float:
    """Seconds of a number that a server sent, of any length: a day at most."""
    return min(float(digits) * unit_seconds, LONGEST_WAIT_SECONDS)


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date, a day at most; 0 if it says nothing."""
    if not value:
        return 0.0
    if value.isascii() and value.isdigit():
        return bounded(value)
    moment = _date(value)
    return 0.0 if moment is None else min(max(0.0, moment.timestamp() - time.time()), LONGEST_WAIT_SECONDS)


def _date(text: str) -> datetime | None:
    found = next(filter(None, (date.fullmatch(text) for date in _DATES)), None)
    if found is None or found["month"] not in _MONTHS:
        return None
    year, this_year = int(found["year"]), datetime.now(UTC).year
    if len(found["year"]) == 2:
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100  # it looks more than 50 years ahead: it is of the last century
    day, hour, minute, second = (int(found[part]) for part in ("day", "hour", "minute", "second"))
    try:
        return datetime(year, _MONTHS.index(found["month"]) + 1, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
