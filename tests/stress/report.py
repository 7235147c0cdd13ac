"""What a scenario came to, as a row of the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.stress.ledger import Verdict
from tests.stress.world import World

COLUMNS = (
    "scenario,clients,delivered,lost,duplicated,disordered,foreign,gaps,reconnects,"
    "replay p50 ms,replay p99 ms,live p99 ms,delivered/s,RSS MB"
)


@dataclass(frozen=True)
class Row:
    name: str
    verdict: Verdict
    problems: list[str]
    cells: tuple[str, ...]

    @property
    def green(self) -> bool:
        return self.verdict.clean and not self.problems


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """What a scenario waited for in vain is a problem of its own; the accounts are looked at all the same."""
    try:
        yield
    except* AssertionError as group:
        problems += [str(error) for error in flat(group)]


def flat(group: BaseExceptionGroup[AssertionError]) -> list[AssertionError]:
    """The errors in a group and in the groups within it."""
    return [
        each
        for error in group.exceptions
        for each in (flat(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def row(name: str, world: World, seconds: float) -> Row:
    """The accounts of all clients, after they left. `seconds` of load."""
    total = Verdict()
    for client in world.clients:
        total.add(world.ledger.judge(client.view))
    replays = sorted(seconds for client in world.clients for seconds in client.replays)
    memory = ((world.leaks.memory_of(part), part.rss_mb) for part in world.gateways)
    numbers = (len(world.clients), *(vars(total)[each] for each in ("delivered", "lost", "duplicated", "disordered")))
    cells = (
        *(str(number) for number in (*numbers, total.foreign, total.gaps)),
        str(sum(client.reconnects for client in world.clients)),
        percentile(replays, 0.5),
        percentile(replays, 0.99),
        percentile(sorted(world.live), 0.99),
        f"{total.delivered / seconds:.0f}",
        " ".join(f"{before:.0f}→{after:.0f}" for before, after in memory),
    )
    problems = [*world.problems, *gaps(total)]
    return Row(name, total, problems, (name, *cells))


def gaps(total: Verdict) -> list[str]:
    """What is wrong with the gaps that were told."""
    return [f"{total.surprises} gaps that nothing explains, or that were missing"] if total.surprises else []


def percentile(ordered: list[float], share: float) -> str:
    """In ms; `-` for no value."""
    return f"{ordered[int((len(ordered) - 1) * share)] * 1000:.0f}" if ordered else "-"


def table(rows: list[Row]) -> str:
    """A Markdown table."""
    heads = COLUMNS.split(",")
    lines = [heads, ["---"] * len(heads), *(list(row.cells) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
