"""Jobs that failed and are kept: listed at the cost of what is listed, and bounded."""

import asyncio
from pathlib import Path

import msgspec
from nats.js.api import KeyValueConfig

from tests.support.bus import broker
from tests.support.raw import RawPublisher
from tidegate_common.bus.jobs.dead import WINDOW, DeadJobs
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.jobs import DeadJob, Job


def failed(number: int, size: int = 0) -> DeadJob:
    job = Job(job_id=f"j{number}", kind="chat", tail="client.a", params={"x": "x" * size}, created=1.0)
    return DeadJob(job=job, error="backend_error: x", attempts=1, failed=float(number))


def numbers(listed: list[DeadJob]) -> list[int]:
    return [int(each.failed) for each in listed]


async def test_listing_the_latest_reads_no_more_than_those(tmp_path: Path) -> None:
    """It read each that was kept: a thousand took half a second, to list a hundred."""
    async with broker(tmp_path) as (_, bus):
        dead = DeadJobs(bus)
        await asyncio.gather(*(dead.keep(failed(number)) for number in range(3 * WINDOW)))
        asked: list[bytes] = []
        bus.client.subscribe_direct("$JS.API.DIRECT.GET.KV_TG_JOBS_DEAD", lambda subject, *_: asked.append(subject))
        listed, total = await dead.latest(10)
        assert (len(listed), total, len(asked)) == (10, 3 * WINDOW, 1)
        listed, _ = await dead.latest(2 * WINDOW)
        assert (len({each.job.job_id for each in listed}), len(asked)) == (2 * WINDOW, 3)


async def test_the_latest_come_first_and_what_was_removed_leaves_no_trace(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        dead = DeadJobs(bus)
        assert await dead.latest(10) == ([], 0)
        for number in range(WINDOW + 4):
            await dead.keep(failed(number))
        for number in range(2, WINDOW + 2):
            await dead.remove(f"j{number}")
        await dead.keep(failed(0))
        listed, total = await dead.latest(10)
        assert (numbers(listed), total) == ([0, WINDOW + 3, WINDOW + 2, 1], 4)
        await dead.remove("nobody")


async def test_copied_headers_of_jetstream_s_do_not_hide_a_dead_job(tmp_path: Path) -> None:
    """A record that was put back by hand, with the headers that it was read with, was listed by the copied sequence."""
    async with broker(tmp_path) as (_, bus):
        dead, raw = DeadJobs(bus), RawPublisher(bus)
        for number in range(3):
            await dead.keep(failed(number))
        for first in ("NATS/1.0", "NATS/1.0 204 EOB"):
            block = f"{first}\r\nNats-Sequence: 900\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 0\r\n\r\n".encode()
            await raw.store("$KV.TG_JOBS_DEAD.j1", block, msgspec.json.encode(failed(1)))
        listed, total = await dead.latest(10)
        assert (numbers(listed), total) == ([1, 2, 0], 3)


async def test_where_too_much_is_kept_the_oldest_go_and_no_job_is_refused_its_end(tmp_path: Path) -> None:
    """There was no bound: a backend that is down for a week could fill the disk."""
    async with broker(tmp_path, StreamLimits(max_dead_bytes=10_000)) as (_, bus):
        dead = DeadJobs(bus)
        for number in range(20):
            await dead.keep(failed(number, 1_000))
        listed, total = await dead.latest(100)
        assert 4 < total < 10
        assert numbers(listed) == list(range(19, 19 - total, -1))


async def test_a_bucket_of_an_earlier_release_is_bounded_and_listed_too(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        await bus.jetstream.delete_key_value("TG_JOBS_DEAD")
        await bus.jetstream.create_key_value(KeyValueConfig(bucket="TG_JOBS_DEAD", ttl=604_800, history=1))
        await DeadJobs(bus).keep(failed(1))
        await ensure_streams(bus, StreamLimits(), update=True)
        listed, total = await DeadJobs(bus).latest(10)
        assert (numbers(listed), total) == ([1], 1)
        config = (await bus.jetstream.stream_info("KV_TG_JOBS_DEAD")).config
        assert config.max_bytes == StreamLimits().max_dead_bytes
