import pytest

from tidegate_common.bus.requests.pages import AT_ONCE, ON_THE_WAY_BYTES, PAGE_BYTES, at_once


@pytest.mark.parametrize("max_payload", [1 << 10, 1 << 20, 8 << 20])
def test_pages_that_are_asked_for_at_once_are_bounded_together_even_where_each_ends_with_the_largest_event(
    max_payload: int,
) -> None:
    assert 1 <= at_once(max_payload) <= AT_ONCE
    assert at_once(max_payload) * (PAGE_BYTES + max_payload) <= ON_THE_WAY_BYTES


def test_there_is_always_room_for_one_page() -> None:
    assert at_once(1 << 30) == 1
