"""Many filters held against each other: which one covers another, and whether two of them overlap.

A client names up to a hundred, each of sixteen tokens, so pairs are not compared one by one. Filters are bits of a
number, and a filter is held against all others at once, token by token: the cost is that of their tokens, whichever
they are. A tree of tokens would be as good for most lists, and as bad as pairs for one of many `*` that somebody made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


class Filters:
    """Different subjects with NATS's wildcards. `covers` and `overlap` in `subjects.py` say it of two."""

    def __init__(self, filters: Iterable[str]) -> None:
        self._tokens = [text.split(".") for text in filters]
        self._with: dict[tuple[int, str], int] = {}
        """Filters by place and token, a bit for each."""
        self._longer: list[int] = []
        """Filters that have a token at that place."""
        self._ending: dict[int, int] = {}
        """Filters of that many tokens."""
        for number, tokens in enumerate(self._tokens):
            bit = 1 << number
            self._ending[len(tokens)] = self._ending.get(len(tokens), 0) | bit
            for place, token in enumerate(tokens):
                if place == len(self._longer):
                    self._longer.append(0)
                self._longer[place] |= bit
                self._with[place, token] = self._with.get((place, token), 0) | bit

    def uncovered(self) -> Iterator[int]:
        """Numbers of the filters that no other one covers, in their order."""
        for number, tokens in enumerate(self._tokens):
            if self._covering(tokens) == 1 << number:
                yield number

    def overlap(self) -> bool:
        """Whether some subject is matched by two of them."""
        return any(self._overlapping(tokens) != 1 << number for number, tokens in enumerate(self._tokens))

    def covers(self, text: str) -> bool:
        """Whether one of them covers `text`, which need not be one of them."""
        return bool(self._covering(text.split(".")))

    def _covering(self, tokens: Sequence[str]) -> int:
        """The filters that match whatever `tokens` match."""
        found, so_far = 0, -1
        for place, token in enumerate(tokens):
            found |= so_far & self._with.get((place, ">"), 0)
            if token == ">":
                return found
            so_far &= self._with.get((place, token), 0) | self._with.get((place, "*"), 0)
        return found | (so_far & self._ending.get(len(tokens), 0))

    def _overlapping(self, tokens: Sequence[str]) -> int:
        """The filters that match something that `tokens` match."""
        found, so_far = 0, -1
        for place, token in enumerate(tokens):
            if token == ">":
                return found | (so_far & self._longer[place])
            found |= so_far & self._with.get((place, ">"), 0)
            equal = self._longer[place] if token == "*" else self._with.get((place, token), 0)
            so_far &= equal | self._with.get((place, "*"), 0)
        return found | (so_far & self._ending[len(tokens)])
