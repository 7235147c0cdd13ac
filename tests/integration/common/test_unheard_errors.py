"""What goes wrong while NATS goes away is told to who waits, and to nobody who does not."""

import asyncio
import logging
import signal
import time
from pathlib import Path

import pytest
from nats import errors as nats_errors

from tests.support.bus import broker, connected
from tests.support.loops import Quiet, on_both_loops
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.jobs import Job
from tidegate_common.errors import TidegateError


@on_both_loops
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_jobs_whose_asking_fails_twice_tell_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    """A job's record and its place in the queue are asked for at the same time: when both failed, one was said by
    Python itself, as an exception that was never retrieved. So it was for callers that had left."""
    async with broker(tmp_path) as (server, bus):
        quiet = Quiet(caplog, level=logging.ERROR)
        queueing = QueueWriter(bus, EventPublisher(bus, History(bus), 0.5), JobRecords(bus))

        async def put(number: int, stays: float) -> bool:
            """Whether it was refused, or not waited for. The error is let go of here: it would keep what it is of."""
            job = Job(job_id=f"j{number}", kind="chat", tail=f"client.a{number % 4}", params={}, created=time.time())
            try:
                async with asyncio.timeout(stays):
                    await queueing.put(job, {}, "trace")
            except (TidegateError, TimeoutError):
                return True
            return False

        if how is signal.SIGSTOP:
            await server.pause()
        else:
            server.run.process.send_signal(how)
        for stays in (30, 0.05, 0):
            refused = await asyncio.gather(*(put(number, stays * (number % 3 + 1)) for number in range(8)))
            assert all(refused)
        if how is signal.SIGSTOP:
            server.go_on()
        assert quiet.lines() == []


@on_both_loops
async def test_questions_that_were_never_sent_are_no_error_of_nobodys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that found NATS away was kept by the client, which failed it at the next loss: Python told of it."""
    async with nats_server(tmp_path) as first:
        async with connected(first.url) as bus:
            quiet = Quiet(caplog, level=logging.ERROR)
            with pytest.raises(nats_errors.Error):
                await bus.client.request("nobody.is.here", b"", timeout=1)
            await first.run.stop(signal.SIGKILL)
            await until(lambda: not bus.connected, "the loss is noticed")
            for _ in range(5):
                with pytest.raises(nats_errors.Error):
                    await bus.client.request("nobody.is.here", b"", timeout=1)
            async with nats_server(tmp_path, first.port) as second:
                await until(lambda: bus.connected, "it is back")
                await second.run.stop(signal.SIGKILL)
                await until(lambda: not bus.connected, "it is lost again")
            assert quiet.lines() == []
