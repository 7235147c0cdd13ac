"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 1.0


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels `tasks` and returns when they have ended; what they give or raise does not matter any more.

    A task that is still there after a second is cancelled again: `asyncio.wait_for` of Python 3.11, which the NATS
    client rests on, swallows a cancel that comes together with its result (gh-86296), and the task goes on.
    """
    tasks = list(tasks)
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()
