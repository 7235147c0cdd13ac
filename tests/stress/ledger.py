"""Accounting: what publisher-api accepted, for whom, against what each client saw. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class View:
    """What one client saw. `targets` are what it listens to; `start` is the sequence of its first `connected`."""

    targets: tuple[str, ...]
    start: int | None = None
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """Numbers of the events received, in the order in which they came."""
    sequences: array[int] = field(default_factory=lambda: array("q"))
    """Sequences in their ids, one for each number."""
    gaps: int = 0


@dataclass
class Verdict:
    """Counts of events; all but `delivered` and `gaps` have to be 0."""

    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    """Came after a later one, or under an id that is not the event's own."""
    foreign: int = 0
    """Never sent, or for others."""
    gaps: int = 0

    def add(self, other: Verdict) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.disordered or self.foreign)


class Ledger:
    """Every event has a number of its own; accepted ones have the sequence that the answer's id told."""

    def __init__(self) -> None:
        self._target: dict[int, str] = {}
        self._sequence: dict[int, int] = {}
        self._accepted: dict[str, list[int]] = {}
        self._latest: dict[str, int] = {}

    @property
    def accepted(self) -> int:
        return len(self._sequence)

    def send(self, target: str) -> int:
        """A number for an event that is about to be sent to `target`."""
        number = len(self._target) + 1
        self._target[number] = target
        return number

    def accept(self, number: int, sequence: int) -> None:
        """publisher-api answered for `number`: from here on it has to arrive."""
        target = self._target[number]
        self._sequence[number] = sequence
        self._accepted.setdefault(target, []).append(number)
        self._latest[target] = max(self._latest.get(target, 0), sequence)

    def latest(self, targets: Iterable[str]) -> int:
        """The highest sequence accepted for one of `targets`, 0 for none."""
        return max((self._latest.get(target, 0) for target in targets), default=0)

    def judge(self, view: View) -> Verdict:
        """What became of the client's events. A gap excuses no loss: the streams under test expire nothing."""
        verdict = Verdict(delivered=len(view.numbers), gaps=view.gaps)
        counts = Counter(view.numbers)
        verdict.duplicated = len(view.numbers) - len(counts)
        verdict.foreign = sum(self._target.get(number) not in view.targets for number in counts)
        verdict.lost = sum(number not in counts for number in self._due(view))
        verdict.disordered = self._disordered(view)
        return verdict

    def _due(self, view: View) -> list[int]:
        numbers = (number for target in view.targets for number in self._accepted.get(target, ()))
        return [number for number in numbers if view.start is None or self._sequence[number] > view.start]

    def _disordered(self, view: View) -> int:
        found = highest = 0
        seen: set[int] = set()
        for number, told in zip(view.numbers, view.sequences, strict=True):
            if number in seen:
                continue
            seen.add(number)
            sequence = self._sequence.get(number, told)  # stored, but its confirmation was lost: its id is all we have
            found += sequence < highest or told != sequence
            highest = max(highest, sequence)
        return found
