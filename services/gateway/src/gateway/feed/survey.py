"""What the stream has last on many tails, in few requests: whether anything is missing is known before a page is read.

1,000 sessions that missed nothing cost three requests so; a page for each of their tails were thousands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.hub.tails import split
from tidegate_common.bus.events.history import History

SUBJECTS_AT_ONCE = 500
"""Asked for in one request: the server answers for 1,024 at most."""

Lasts = Mapping[str, int] | None
"""By tail that an event addressed: its last sequence. None if there are more subjects than the server answers for."""


async def survey(history: History, starts: Mapping[str, int], upto: int) -> dict[str, Lasts]:
    """For each tail of `starts` that somebody listens to: the last events on it that are over its start.

    The answer holds for everything up to the sequence `upto`. Raises BrokerUnavailable.
    """
    found: dict[str, Lasts] = {}

    async def ask(listened: list[str]) -> None:
        real = list({split(tail)[0] for tail in listened})
        lasts = await history.latest(real, min(starts[tail] for tail in listened), upto)
        for tail in listened:
            if lasts is None or _wide(tail):
                found[tail] = lasts
            else:
                name, _ = split(tail)
                found[tail] = {name: lasts[name]} if name in lasts else {}

    # Tails of like starts go together: the server sends the whole last event of each subject that is past the least.
    exact = sorted((tail for tail in starts if not _wide(tail)), key=starts.__getitem__)
    chunks = [exact[first : first + SUBJECTS_AT_ONCE] for first in range(0, len(exact), SUBJECTS_AT_ONCE)]
    asked = [ask(chunk) for chunk in [*chunks, *([tail] for tail in starts if _wide(tail))]]
    for failed in await asyncio.gather(*asked, return_exceptions=True):
        if failed is not None:
            raise failed
    return found


def _wide(tail: str) -> bool:
    return "*" in tail or ">" in tail
