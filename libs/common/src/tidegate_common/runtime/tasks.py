"""Tasks that run beside the rest: none fails unheard, and each ends for sure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_SECONDS = 1.0


def spawn(work: Coroutine[Any, Any, T], what: str) -> asyncio.Task[T]:
    """Runs `work` as a task of its own. An error that ends it is logged at once, with `what` it was about.

    A task that nobody waits for tells its error when it is collected, which for one that is kept is never.
    """

    def ended(task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("%s has broken off", what, exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


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
