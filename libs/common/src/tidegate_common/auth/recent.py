"""What was found out lately, by a key, within bounds: the one that was asked for longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values with weights, `most` of them together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._found: OrderedDict[bytes, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: bytes) -> T | None:
        """The value of `key`, which is the newest from now on."""
        found = self._found.get(key)
        if found is None:
            return None
        self._found.move_to_end(key)
        return found[0]

    def keep(self, key: bytes, value: T, weight: int) -> None:
        """`key` is not there yet."""
        self._found[key] = value, weight
        self._held += weight
        while self._held > self._most:
            self._held -= self._found.popitem(last=False)[1][1]

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Takes the `unwanted` values out."""
        for key, weight in [(key, weight) for key, (value, weight) in self._found.items() if unwanted(value)]:
            del self._found[key]
            self._held -= weight

    def clear(self) -> None:
        self._found.clear()
        self._held = 0
