"""A kind of job of one's own: counts down, a number a second."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ai_worker.api import Finish, InvalidParams, Piece, Progress, Text, Work


async def countdown(work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
    start = params.get("from", 10)
    if not isinstance(start, int) or not 1 <= start <= 1000:
        raise InvalidParams("from: a number from 1 to 1000")
    for number in range(start, 0, -1):
        yield Text(f"{number}… ")
        yield Progress(1 - number / start)
        await asyncio.sleep(params.get("pause", 1.0))
    yield Text("lift-off!")
    yield Finish("stop")
