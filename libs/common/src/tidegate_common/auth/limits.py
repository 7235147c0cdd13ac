"""Rates: how often somebody may do something, by a token bucket for each, in this process alone."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from tidegate_common.errors import Limited

MOST_BUCKETS = 10_000
"""Subjects, keys or addresses that one limit remembers. Who is forgotten begins with a full bucket again."""


class Rate(NamedTuple):
    """So many per second in the long run, and so many at once."""

    per_second: float
    burst: float

    @classmethod
    def of(cls, text: str) -> Rate | None:
        """What `rate/burst` says; None for an empty text, which is no limit. Raises ValueError."""
        if not text:
            return None
        try:
            rate, _, burst = text.partition("/")
            found = cls(float(rate), float(burst))
        except ValueError:
            found = cls(0, 0)
        if not (math.isfinite(found.per_second) and found.per_second > 0 and 1 <= found.burst < math.inf):
            raise ValueError("rate/burst, as in 10/200: so many per second, and so many at once")
        return found


class RateLimit:
    """One limit, by name. `take` is called for each time that something is done."""

    def __init__(self, name: str, rate: Rate | None, clock: Callable[[], float] = monotonic) -> None:
        self.name = name
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By key: what was in it, and when."""
        self.refused = 0

    def take(self, key: str, own: Rate | None = None) -> None:
        """Takes one for `key`, whose own rate counts in place of the common one. Raises Limited if there is none."""
        rate = own or self._rate
        if rate is None:
            return
        left, now = self._left(key, rate)
        if left < 1:
            self.refused += 1
            self._keep(key, left, now)
            wait = math.ceil((1 - left) / rate.per_second)
            raise Limited(self.name, f"{self.name}: {rate.per_second:g} per second, {rate.burst:g} at once", wait)
        self._keep(key, left - 1, now)

    def check(self, key: str) -> None:
        """Raises Limited if there is none for `key`; takes none."""
        if self._rate is None or key not in self._buckets:
            return
        left, _ = self._left(key, self._rate)
        if left < 1:
            self.refused += 1
            raise Limited(self.name, f"{self.name}: too many", math.ceil((1 - left) / self._rate.per_second))

    def _left(self, key: str, rate: Rate) -> tuple[float, float]:
        now = self._clock()
        left, then = self._buckets.get(key, (rate.burst, now))
        return min(rate.burst, left + (now - then) * rate.per_second), now

    def _keep(self, key: str, left: float, now: float) -> None:
        self._buckets[key] = left, now
        self._buckets.move_to_end(key)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
