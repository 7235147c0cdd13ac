from pathlib import Path

from tests.support.bus import broker
from tidegate_common.bus.requests.bucket import Bucket, Entry


async def test_a_key_is_set_only_at_the_revision_that_is_expected(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        bucket = Bucket(bus, "TG_JOBS_STATE")
        assert await bucket.get("a") is None
        first = await bucket.create("a", b"1")
        assert await bucket.get("a") == Entry(b"1", first)
        assert await bucket.create("a", b"2") == 0
        second = await bucket.put("a", b"3", first)
        assert second > first
        assert await bucket.put("a", b"4", first) == 0
        assert await bucket.get("a") == Entry(b"3", second)
        assert await bucket.put("a", b"5") > second


async def test_a_key_that_was_removed_can_be_created_again(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        bucket = Bucket(bus, "TG_JOBS_STATE")
        first = await bucket.create("a", b"1")
        assert not await bucket.remove("a", first + 1)
        assert await bucket.remove("a", first)
        removed = await bucket.get("a")
        assert removed == Entry(None, first + 1)
        assert await bucket.create("a", b"2") == first + 2
        assert await bucket.get("a") == Entry(b"2", first + 2)
