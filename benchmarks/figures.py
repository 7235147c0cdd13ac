"""What was measured, held against its bar, as rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("figure", "bar", "ratio", "measured", "yardstick", "verdict", "how")
MET, MISSED, UNKNOWN, SHOWN = "met", "**missed**", "**not measured**", "–"


@dataclass(frozen=True)
class Yardstick:
    """Work of the same run that a figure is held against. Its values were measured before the figure and after it."""

    name: str
    values: tuple[float, ...]
    unit: str = "µs"

    @property
    def value(self) -> float:
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        return f"{self.name}: {' → '.join(number(value) for value in self.values)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Row:
    """One line. `verdict` is one of MET, MISSED, UNKNOWN (counts as missed) and SHOWN (there is no bar)."""

    figure: str
    measured: str
    verdict: str = SHOWN
    bar: str = "–"
    ratio: str = "–"
    yardstick: str = "–"
    how: str = ""
    value: float | None = None
    """What was measured, as a number: two checkouts are compared by it."""

    @property
    def short(self) -> bool:
        return self.verdict in (MISSED, UNKNOWN)


def held(
    figure: str, value: float, bar: float, unit: str, yardstick: Yardstick, *, how: str = "", least: bool = False
) -> Row:
    """A row whose `value` may be at most `bar` times the yardstick, or, with `least`, has to be at least that."""
    ratio = value / yardstick.value
    met = verdict(ratio, bar, least)
    return Row(figure, number(value, unit), met, limit(bar, least), number(ratio), str(yardstick), how, value)


def beside(
    figure: str, mine: Sequence[float], theirs: Sequence[float], bar: float, unit: str, name: str, *, how: str = ""
) -> Row:
    """A row of what was measured in rounds beside `name`: what disturbs the machine for a minute disturbs both."""
    ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
    ratio, value = median(ratios), median(mine)
    how = f"median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f}; {how}"
    yardstick = str(Yardstick(name, (median(theirs),), unit))
    return Row(figure, number(value, unit), verdict(ratio, bar), limit(bar), number(ratio), yardstick, how, value)


def shown(figure: str, value: float, unit: str, how: str = "") -> Row:
    """A row without a bar."""
    return Row(figure, number(value, unit), how=how, value=value)


def bounded(figure: str, value: float, bar: float, unit: str = "", *, how: str = "") -> Row:
    """A row whose `value` may be at most `bar` on any machine, fast or slow: it is a size or a count."""
    return Row(figure, number(value, unit), verdict(value, bar), limit(bar, unit=unit), how=how, value=value)


def verdict(value: float, bar: float, least: bool = False) -> str:
    """The number decides, and not its rounding."""
    return MET if (value >= bar if least else value <= bar) else MISSED


def limit(bar: float, least: bool = False, unit: str = "") -> str:
    return f"{'≥' if least else '≤'} {number(bar, unit)}"


def missing(figure: str, why: str, bar: str) -> Row:
    """A bar that could not be put to the test."""
    return Row(figure, why, UNKNOWN, bar)


def number(value: float, unit: str = "") -> str:
    """Two decimals (three below 1) without their last zeros, and the unit; whole numbers from 100 on."""
    digits = 0 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    text = f"{value:,.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()


def median(values: Sequence[float]) -> float:
    """Raises statistics.StatisticsError for no values."""
    return statistics.median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank). Raises IndexError for no values."""
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    return table_of(COLUMNS, [[getattr(row, column) for column in COLUMNS] for row in rows])


def table_of(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
