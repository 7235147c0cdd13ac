"""The loop that takes jobs, as an operator sees it."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ai_worker.consumer import JobConsumer
from tests.support.waiting import until
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.runtime.tasks import end


async def test_a_fault_of_ours_that_comes_again_and_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each try, five in a second, was an error with its stack."""
    tries = 0

    async def open_queue() -> JobQueue:
        nonlocal tries
        tries += 1
        raise RuntimeError("a fault")

    signals = cast(Any, SimpleNamespace(tracer=None))
    taking = JobConsumer(open_queue, cast(Any, None), cast(Any, None), 1, "tg.jobs", lambda: cast(Any, {}), signals)
    task = asyncio.create_task(taking.run())
    try:
        await until(lambda: tries > 3, "it is tried again")
    finally:
        await end([task])
    assert [(record.levelno, record.exc_info is not None) for record in caplog.records] == [(logging.ERROR, True)]
