"""Accounting: what publisher-api accepted, for whom, against what each client saw. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

LIFE = 1 << 40
"""More than one life of the stream has sequences."""

NO_PLACE = 0
"""Of an event that came without an id."""


@dataclass
class View:
    """What one client saw. `targets` are what it listens to; `start` is the place of its first `connected`."""

    targets: tuple[str, ...]
    start: int | None = None
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """Numbers of the events received, in the order in which they came."""
    places: array[int] = field(default_factory=lambda: array("q"))
    """Places that their ids name, one for each number; NO_PLACE for an event without an id."""
    gaps: list[str] = field(default_factory=list)
    """Reasons of the gaps that it was told."""
    expected: list[str] = field(default_factory=list)
    """Reasons of the gaps that the scenario had it told."""
    excused: list[tuple[int, int]] = field(default_factory=list)
    """What lay within the expected ones: after a place, up to another."""
    chapters: list[int] = field(default_factory=list)
    """How many events had come at each gap of the kind `epoch`: after it all of a stream may come, some of it again."""
    may_be_late: bool = False
    """Events are lost on the way to its gateway: they may come after later ones, then without an id."""

    def tell(self, reason: str, after: int, upto: int) -> None:
        """It was told a gap."""
        self.gaps.append(reason)
        if self.gaps.count(reason) <= self.expected.count(reason):
            self.excused.append((after, upto))
            if reason == "epoch":
                self.chapters.append(len(self.numbers))

    def parts(self) -> Iterator[tuple[array[int], array[int]]]:
        """The numbers and places of each chapter."""
        for start, end in pairwise((0, *self.chapters, len(self.numbers))):
            yield self.numbers[start:end], self.places[start:end]

    def has(self, place: int) -> bool:
        """Whether what is at `place` is due to it, as far as its start and its gaps go."""
        after_start = self.start is None or place > self.start
        return after_start and not any(after < place <= upto for after, upto in self.excused)


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
    surprises: int = 0
    """Gaps that nothing in the scenario explains, or that were not told though something did."""

    def add(self, other: Verdict) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.disordered or self.foreign or self.surprises)


class Ledger:
    """Every event has a number of its own; accepted ones have the place that the answer's id told."""

    def __init__(self) -> None:
        self._target: dict[int, str] = {}
        self._volatile: set[int] = set()
        self._place: dict[int, int] = {}
        self._accepted: dict[str, list[int]] = {}
        self._latest: dict[str, int] = {}
        self._lives: dict[str, int] = {}

    @property
    def sent(self) -> int:
        """The number of the last event that was sent, or is about to be."""
        return len(self._target)

    @property
    def accepted(self) -> int:
        return len(self._place)

    def place(self, event_id: str) -> int:
        """Where an id stands: places grow with the sequence, and from one life of the stream to the next."""
        epoch, _, sequence = event_id.rpartition("-")
        return self._lives.setdefault(epoch, len(self._lives)) * LIFE + int(sequence)

    def send(self, target: str, *, volatile: bool = False) -> int:
        """A number for an event that is about to be sent to `target`. A volatile one need not arrive."""
        number = len(self._target) + 1
        self._target[number] = target
        if volatile:
            self._volatile.add(number)
        return number

    def accept(self, number: int, place: int) -> None:
        """publisher-api answered for `number`: from here on it has to arrive."""
        target = self._target[number]
        self._place[number] = place
        self._accepted.setdefault(target, []).append(number)
        self._latest[target] = max(self._latest.get(target, 0), place)

    def latest(self, targets: Iterable[str]) -> int:
        """The highest place accepted for one of `targets`, 0 for none."""
        return max((self._latest.get(target, 0) for target in targets), default=0)

    def judge(self, view: View) -> Verdict:
        """What became of the client's events. A gap excuses what it was to excuse and nothing else."""
        verdict = Verdict(delivered=len(view.numbers), gaps=len(view.gaps), surprises=_surprises(view))
        counts = Counter(view.numbers)
        verdict.duplicated = sum(len(numbers) - len(set(numbers)) for numbers, _ in view.parts())
        verdict.foreign = sum(self._target.get(number) not in view.targets for number in counts)
        verdict.lost = sum(number not in counts for number in self._due(view))
        verdict.disordered = sum(self._disordered(view.may_be_late, *part) for part in view.parts())
        return verdict

    def _due(self, view: View) -> list[int]:
        numbers = (number for target in view.targets for number in self._accepted.get(target, ()))
        return [number for number in numbers if view.has(self._place[number])]

    def _disordered(self, may_be_late: bool, numbers: array[int], places: array[int]) -> int:
        found = highest = 0
        seen: set[int] = set()
        for number, told in zip(numbers, places, strict=True):
            if number in seen:
                continue
            seen.add(number)
            place = self._place.get(number, told)  # stored, but its confirmation was lost: its id is all we have
            if number in self._volatile:
                found += told != NO_PLACE
            elif told == NO_PLACE:
                found += not may_be_late or place > highest
            else:
                found += place < highest or told != place
                highest = max(highest, place)
        return found


def _surprises(view: View) -> int:
    told, expected = Counter(view.gaps), Counter(view.expected)
    return (told - expected).total() + (expected - told).total()
