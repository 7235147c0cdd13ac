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

    @property
    def short(self) -> bool:
        return self.verdict in (MISSED, UNKNOWN)


def held(
    figure: str, value: float, bar: float, unit: str, yardstick: Yardstick, *, how: str = "", least: bool = False
) -> Row:
    """A row whose `value` may be at most `bar` times the yardstick, or, with `least`, has to be at least that."""
    return compared(figure, value / yardstick.value, bar, number(value, unit), str(yardstick), how=how, least=least)


def compared(
    figure: str, ratio: float, bar: float, measured: str, yardstick: str, *, how: str = "", least: bool = False
) -> Row:
    """A row whose `ratio` is known already."""
    return Row(figure, measured, verdict(ratio, bar, least), limit(bar, least), number(ratio), yardstick, how)


def bounded(figure: str, value: float, bar: float, unit: str = "", *, how: str = "") -> Row:
    """A row whose `value` may be at most `bar` on any machine, fast or slow: it is a size or a count."""
    return Row(figure, number(value, unit), verdict(value, bar), limit(bar, unit=unit), how=how)


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
    cells = [[getattr(row, column) for column in COLUMNS] for row in rows]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
