"""What was measured, held against its bar, as rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("figure", "bar", "measured", "peer or limit", "verdict", "how")
MET, MISSED, UNKNOWN, SHOWN = "met", "**missed**", "**not measured**", "–"


@dataclass(frozen=True)
class Row:
    """One line. `verdict` is one of MET, MISSED, UNKNOWN (counts as missed) and SHOWN (there is no bar)."""

    figure: str
    measured: str
    verdict: str = SHOWN
    bar: str = "–"
    peer: str = "–"
    how: str = ""

    @property
    def short(self) -> bool:
        return self.verdict in (MISSED, UNKNOWN)


def held(
    figure: str, value: float, bar: float, unit: str = "", *, peer: str = "–", how: str = "", least: bool = False
) -> Row:
    """A row whose `value` may be at most `bar`, or, with `least`, has to be at least that. Rounding bends nothing."""
    met = value >= bar if least else value <= bar
    sign = "≥" if least else "≤"
    return Row(figure, number(value, unit), MET if met else MISSED, f"{sign} {number(bar, unit)}", peer, how)


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
    cells = [[row.figure, row.bar, row.measured, row.peer, row.verdict, row.how] for row in rows]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
