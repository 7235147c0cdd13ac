"""How long to wait before the next attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0


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


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 where it says nothing."""
    if not value:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
