from pathlib import Path

from gateway.feed import shared
from gateway.feed.shared import SharedHistory
from tests.support.bus import broker
from tidegate_common.bus.history import History
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.events import Event


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_every_reader_gets_what_history_has_whatever_the_window_holds(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history, clock = History(bus), Clock()
        publisher = Publisher(bus, history)
        for number in range(60):
            await publisher.durable(f"topic.{'ab'[number % 2]}", Event("n", str(number)), headers={})
        read = SharedHistory(history, clock)

        async def sequences(after: int, upto: int) -> list[int]:
            return [stored.sequence async for stored in read.after("e", "topic.a", after, upto)]

        for after, upto in [(20, 40), (20, 60), (30, 50), (10, 30), (0, 60), (59, 60), (40, 40), (25, 26)]:
            assert await sequences(after, upto) == [n for n in range(1, 61) if n % 2 and after < n <= upto]
        pages = history.pages
        assert await sequences(5, 55) == [n for n in range(1, 61) if n % 2 and 5 < n <= 55]
        assert history.pages == pages, "what the window holds is not read again"
        clock.now += shared.KEEP_SECONDS + 0.1
        await bus.jetstream.delete_msg("TG_EVENTS", 7)
        assert 7 not in await sequences(5, 55), "a window is kept for a moment only"


async def test_a_window_is_bounded_and_the_rest_is_read_beyond_it(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = Publisher(bus, history)
        payload = "x" * (shared.MAX_BYTES // 10)
        for _ in range(25):
            await publisher.durable("broadcast", Event("n", payload), headers={})
        read = SharedHistory(history, Clock())
        for _ in range(2):
            found = [stored.sequence async for stored in read.after("e", "broadcast", 0, 25)]
            assert found == list(range(1, 26))
        (window,) = read._windows.values()
        assert window.size < shared.MAX_BYTES * 1.2
