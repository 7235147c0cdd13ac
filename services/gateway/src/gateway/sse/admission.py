"""How many streams there may be, in all and from one address."""

from __future__ import annotations

import random
from collections import Counter

from tidegate_common.errors import TooManyConnections, TooManyFromAddress


class Admission:
    """Counts streams from before their head is sent until their connection is gone."""

    def __init__(self, most: int, most_per_address: int) -> None:
        """`most_per_address` of 0 is no limit."""
        self._most = most
        self._most_per_address = most_per_address
        self._from: Counter[str] = Counter()
        self.active = 0
        self.total = 0
        self.refused = {"total": 0, "address": 0, "draining": 0}
        self.draining = False

    def check(self, address: str) -> None:
        """Raises TooManyConnections, TooManyFromAddress if there is no place for `address` now.

        Called before a request is read: a client that is refused must cost no more than that.
        """
        if self.draining:
            self.refused["draining"] += 1
            raise TooManyConnections("this gateway is being stopped", retry_after=1)
        if self.active >= self._most:
            self.refused["total"] += 1
            raise TooManyConnections("this gateway holds all the connections that it may", random.randint(2, 10))
        if self._most_per_address and self._from[address] >= self._most_per_address:
            self.refused["address"] += 1
            raise TooManyFromAddress(self._most_per_address, random.randint(2, 10))

    def enter(self, address: str) -> None:
        """Takes a place for `address`. Raises TooManyConnections, TooManyFromAddress."""
        self.check(address)
        self._from[address] += 1
        self.active += 1

    def opened(self) -> None:
        """A place has become a stream, or what else is counted here."""
        self.total += 1

    def refuse(self, reason: str) -> None:
        """What had a place did not come about."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def leave(self, address: str) -> None:
        """Gives the place back."""
        self.active -= 1
        self._from[address] -= 1
        if not self._from[address]:
            del self._from[address]
