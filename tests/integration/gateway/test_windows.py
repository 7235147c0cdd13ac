from pathlib import Path

import pytest

from gateway.feed import windows
from gateway.feed.windows import Windows
from tests.support.bus import broker
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.contract.events import Event


async def test_every_reader_gets_what_history_has_whatever_the_window_holds(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        for number in range(60):
            await publisher.durable(f"topic.{'ab'[number % 2]}", Event("n", str(number)), headers={})
        read = Windows(history)

        async def sequences(after: int, upto: int) -> list[int]:
            return [stored.sequence async for stored in read.after(1, "topic.a", after, upto)]

        for after, upto in [(20, 40), (20, 60), (30, 50), (10, 30), (0, 60), (59, 60), (40, 40), (25, 26)]:
            assert await sequences(after, upto) == [n for n in range(1, 61) if n % 2 and after < n <= upto]
        pages = history.pages
        assert await sequences(5, 55) == [n for n in range(1, 61) if n % 2 and 5 < n <= 55]
        assert history.pages == pages, "what the window holds is not read again"


async def test_a_window_is_bounded_and_the_rest_is_read_beyond_it(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        payload = "x" * (windows.MAX_BYTES // 10)
        for _ in range(25):
            await publisher.durable("broadcast", Event("n", payload), headers={})
        read = Windows(history)
        for _ in range(2):
            found = [stored.sequence async for stored in read.after(1, "broadcast", 0, 25)]
            assert found == list(range(1, 26))
        (window,) = read._windows.values()
        assert window.size < windows.MAX_BYTES * 1.2


async def test_windows_go_by_themselves_after_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stayed until somebody read what is shared once more: each tail that thousands had come back to, for ever."""
    monkeypatch.setattr(windows, "KEEP_SECONDS", 0.05)
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        for tail in ("topic.a", "topic.b", "topic.a"):
            await publisher.durable(tail, Event("n", "x"), headers={})
        read = Windows(history)
        for tail, found in (("topic.a", [1, 3]), ("topic.b", [2])):
            assert [stored.sequence async for stored in read.after(1, tail, 0, 3)] == found
        assert read.size > 0
        await until(lambda: not read._windows, "they are gone")
        assert read.size == 0
        await bus.jetstream.delete_msg("TG_EVENTS", 1)
        assert [stored.sequence async for stored in read.after(1, "topic.a", 0, 3)] == [3]


async def test_all_windows_together_are_bounded_and_what_finds_no_room_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was bounded, and their number was not. One that somebody still reads counts, though its time is over."""
    monkeypatch.setattr(windows, "MAX_BYTES_IN_ALL", 50_000)
    monkeypatch.setattr(windows, "KEEP_SECONDS", 0.05)
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        for number in range(60):
            await publisher.durable(f"topic.{number % 2}", Event("n", "x" * 10_000), headers={})
        read = Windows(history)
        slow = read.after(1, "topic.0", 0, 60)
        slowly = [(await anext(slow)).sequence]
        await until(lambda: not read._windows, "its time is over")
        for tail in ("topic.0", "topic.1"):
            found = [stored.sequence async for stored in read.after(1, tail, 0, 60)]
            assert found == [number + 1 for number in range(60) if number % 2 == int(tail[-1])]
            assert 0 < read.size < 50_000 + 11_000
        slowly += [stored.sequence async for stored in slow]
        assert slowly == list(range(1, 61, 2))
        await until(lambda: not read._windows, "all are gone")
        assert read.size == 0


async def test_a_window_that_is_read_on_meanwhile_leaves_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stopped for want of room goes on when there is some: who reads it at that moment must not pass over that."""
    monkeypatch.setattr(windows, "MAX_BYTES_IN_ALL", 50_000)
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        await EventPublisher(bus, history).durable_all([Durable("topic.a", Event("n", "x" * 10_000))] * 20, headers={})
        read = Windows(history)
        first = read.after(1, "topic.a", 0, 20)
        found = [(await anext(first)).sequence]
        monkeypatch.setattr(windows, "MAX_BYTES_IN_ALL", 500_000)
        assert [stored.sequence async for stored in read.after(1, "topic.a", 0, 20)] == list(range(1, 21))
        found += [stored.sequence async for stored in first]
        assert found == list(range(1, 21))
