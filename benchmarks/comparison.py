"""Another checkout beside this one: each question in turn for the one and for the other, again and again.

This checkout's benchmark puts the questions, and only the services are the other's, run by the interpreter in its own
environment. Two runs, one after the other, would tell what else the machine did in those minutes.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.figures import Row, median, number, table_of
from benchmarks.options import Options

Question = Callable[[Options], Awaitable[list[Row]]]
COLUMNS = ("figure", "other", "this", "this ÷ other", "range")


@dataclass
class Pairs:
    """A figure of the other checkout and of this one, in each round."""

    other: list[float] = field(default_factory=list)
    this: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Within a round: what disturbs the machine for a minute disturbs both."""
        return [this / other if other else float("nan") for this, other in zip(self.this, self.other, strict=True)]


def interpreter(checkout: Path) -> str:
    """The one in the checkout's environment of the same name as this one's. Raises FileNotFoundError."""
    found = checkout.resolve() / Path(sys.prefix).name / "bin" / "python"
    if not found.exists():
        raise FileNotFoundError(f"{found} is not there: make setup VENV={Path(sys.prefix).name} in that checkout")
    return str(found)


async def compare(questions: Mapping[str, Question], options: Options, other: str) -> dict[str, Pairs]:
    """What both came to, by figure. Which of them is first changes from round to round."""
    found: dict[str, Pairs] = {}
    once = replace(options, rounds=1, peers=("none",))
    for name, question in questions.items():
        for turn in range(options.rounds):
            options.say(f"--- {name}, round {turn + 1} of {options.rounds}")
            trees = [replace(once, python=other), once]
            try:
                rows = {tree.python: await question(tree) for tree in trees[:: 1 - 2 * (turn % 2)]}
            except Exception:  # the minutes that the other rounds took are not to be lost
                traceback.print_exc()
                continue
            collect(found, rows[other], rows[once.python])
    return found


def collect(found: dict[str, Pairs], other: list[Row], this: list[Row]) -> None:
    """Adds what has a number on both sides."""
    before = {row.figure: row.value for row in other if row.value is not None}
    for row in this:
        if row.value is not None and row.figure in before:
            pairs = found.setdefault(row.figure, Pairs())
            pairs.other.append(before[row.figure])
            pairs.this.append(row.value)


def told(found: Mapping[str, Pairs]) -> str:
    """Markdown: medians, the median of the ratios and how far they go apart."""
    cells = []
    for figure, pairs in found.items():
        ratios = pairs.ratios
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        medians = [number(median(values)) for values in (pairs.other, pairs.this, ratios)]
        cells.append([figure, *medians, span])
    return table_of(COLUMNS, cells)
