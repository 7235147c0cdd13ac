"""Work that goes on for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def during(seconds: float, work: list[Coroutine[Any, Any, None]]) -> None:
    """Does all of `work` at once and ends what is not over by then. Raises what broke one of it."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    finally:  # it may be part of other work, which is over
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
