"""Rates: how often somebody may do something, by a token bucket for each, in this process alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import NamedTuple

from tidegate_common.contract.budget import Allowance
from tidegate_common.errors import Limited

MOST_BUCKETS = 10_000
"""Subjects, keys or addresses that one limit remembers, of those whose bucket is not full."""

LEAST_RATE = 1e-6
"""Per second: less is no rate, and no number to divide by."""

ROUNDING = 1e-6
"""Seconds that arithmetic with fractions may take from somebody."""


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
        if not (LEAST_RATE <= found.per_second < math.inf and 1 <= found.burst < math.inf):
            raise ValueError("rate/burst, as in 10/200: so many per second, and so many at once")
        return found


read_rate = lru_cache(maxsize=1_000)(Rate.of)
"""The same, for what is asked with each request: the rates of a keys file are few."""


class RateLimit:
    """One limit, by name. `take` is called for each time that something is done; it costs about 0.6 µs (measured)."""

    def __init__(
        self, name: str, rate: Rate | None, clock: Callable[[], float] = monotonic, most: int = MOST_BUCKETS
    ) -> None:
        self.name = name
        self._rate = rate
        self._clock = clock
        self._most = most
        self._full_at: dict[str, float] = {}
        """By key: when its bucket will be full again. All that a bucket has to know (it is GCRA's arrival time)."""
        self.refused = 0

    @property
    def on(self) -> bool:
        """Whether there is a common rate."""
        return self._rate is not None

    def take(self, key: str, own: Rate | None = None) -> None:
        """Takes one for `key`, whose own rate counts in place of the common one. Raises Limited if there is none."""
        rate = own or self._rate
        if rate is None:
            return
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + 1 / rate.per_second
        self._check(rate, full_at - now)
        self._full_at[key] = full_at
        if len(self._full_at) > self._most:
            self._forget(now)

    def allowance(self, key: str, own: Rate | None = None) -> Allowance | None:
        """What `key` has left; None if nothing limits it."""
        rate = own or self._rate
        if rate is None:
            return None
        seconds = max(0.0, self._full_at.get(key, 0.0) - self._clock())
        return Allowance(rate.burst, max(0.0, rate.burst - seconds * rate.per_second), seconds)

    def _check(self, rate: Rate, seconds: float) -> None:
        """`seconds`: after how many the bucket would be full again."""
        excess = seconds - rate.burst / rate.per_second
        if excess > ROUNDING:
            self.refused += 1
            wait = max(1, math.ceil(excess))
            raise Limited(self.name, f"{self.name}: {rate.per_second:g} per second, {rate.burst:g} at once", wait)

    def _forget(self, now: float) -> None:
        """Makes room for half as many again.

        Full buckets are forgotten without loss. If that is not enough, those go that are nearest to it: an attacker who
        comes as many loses the buckets with one taken out of them, and not the empty one.
        """
        left = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        if len(left) > self._most // 2:
            emptiest = sorted(left.items(), key=lambda each: each[1], reverse=True)
            left = dict(emptiest[: self._most // 2])
        self._full_at = left
