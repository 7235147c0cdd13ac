import asyncio

import pytest

from tidegate_common.runtime.tasks import end, spawn


async def test_a_task_that_swallows_a_cancel_is_ended_all_the_same() -> None:
    """A stop once hung for ever: wait_for of Python 3.11 had given its result in place of the cancel."""
    cancels = 0

    async def stubborn() -> None:
        nonlocal cancels
        while cancels < 2:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancels += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end([task])
    assert task.done()
    assert cancels == 2


async def test_a_task_that_failed_or_has_ended_hinders_nothing() -> None:
    async def fails() -> None:
        raise ValueError

    failed = asyncio.create_task(fails())
    await asyncio.wait([failed])
    await end([failed])
    await end([])


async def test_a_task_that_breaks_off_says_so_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """One that is kept, and that nobody waits for, would tell its error at the process's end, if ever."""

    async def fails() -> None:
        raise ValueError("a fault of ours")

    task = spawn(fails(), "the work")
    await asyncio.wait([task])
    (record,) = caplog.records
    assert record.getMessage() == "the work has broken off"
    assert record.exc_info is not None
    await end([spawn(asyncio.sleep(60), "what is ended")])
    assert len(caplog.records) == 1
