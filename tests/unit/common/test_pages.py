import pytest

from tidegate_common.bus.events.origin import Origin
from tidegate_common.bus.requests.pages import AT_ONCE, ON_THE_WAY_BYTES, PAGE_BYTES, Page, PageCollector, at_once
from tidegate_common.errors import BrokerUnavailable


@pytest.mark.parametrize("max_payload", [1 << 10, 1 << 20, 8 << 20])
def test_pages_that_are_asked_for_at_once_are_bounded_together_even_where_each_ends_with_the_largest_event(
    max_payload: int,
) -> None:
    assert 1 <= at_once(max_payload) <= AT_ONCE
    assert at_once(max_payload) * (PAGE_BYTES + max_payload) <= ON_THE_WAY_BYTES


def test_there_is_always_room_for_one_page() -> None:
    assert at_once(1 << 30) == 1


def message(sequence: int, last: int, left: int) -> bytes:
    return (
        f"NATS/1.0\r\nNats-Stream: TG_EVENTS\r\nNats-Subject: tg.in.client.a\r\nNats-Sequence: {sequence}\r\n"
        f"Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: {left}\r\nNats-Last-Sequence: {last}\r\n\r\n"
    ).encode()


def end(last: int, left: int = 0) -> bytes:
    return f"NATS/1.0 204 EOB\r\nNats-Num-Pending: {left}\r\nNats-Last-Sequence: {last}\r\n\r\n".encode()


NOT_FOUND = b"NATS/1.0 404 Not Found\r\n\r\n"
WHOLE = [message(3, 0, 3), message(5, 3, 2), message(6, 5, 1), message(9, 6, 0), end(9)]


async def made_of(blocks: list[bytes]) -> Page:
    collector = PageCollector(Origin("TG_EVENTS"), len("tg.in."))
    for block in blocks:
        collector.take(block, b"")
    assert collector.page.done()
    return await collector.page


async def test_a_page_has_what_was_sent_for_it_and_tells_how_much_is_left() -> None:
    page = await made_of(WHOLE)
    assert [(each.sequence, each.tail) for each in page.events] == [(each, "client.a") for each in (3, 5, 6, 9)]
    assert page.left == 0
    page = await made_of([*WHOLE[:2], end(5, 2)])
    assert ([each.sequence for each in page.events], page.left) == ([3, 5], 2)
    assert await made_of([NOT_FOUND]) == Page([], 0, 0)
    assert (await made_of([b"NATS/1.0 413 Too Many Results\r\n\r\n"])).too_many


@pytest.mark.parametrize(
    "torn",
    [
        WHOLE[1:],
        WHOLE[:2] + WHOLE[3:],
        WHOLE[:3] + WHOLE[4:],
        WHOLE[4:],
        [*WHOLE[:2], NOT_FOUND],
    ],
    ids=["head", "middle", "last", "all but the end", "an end of another kind"],
)
async def test_an_answer_of_which_a_part_was_lost_is_never_taken_for_whole(torn: list[bytes]) -> None:
    """After a reconnect the rest of it came to the same inbox, with its end, and passed for all that there was."""
    with pytest.raises(BrokerUnavailable, match="lost"):
        await made_of(torn)


async def test_a_page_ends_with_its_connection() -> None:
    collector = PageCollector(Origin("TG_EVENTS"), len("tg.in."))
    collector.take(WHOLE[0], b"")
    collector.cut_off()
    for block in WHOLE[1:]:
        collector.take(block, b"")
    with pytest.raises(BrokerUnavailable, match="went away"):
        await collector.page
