"""What one connection is held to: the size of its head, and the one time that it has."""

import asyncio
from typing import cast

from tidegate_common.runtime.environment import CommonSettings
from tidegate_common.runtime.guard import PIECE_BYTES, Guard, HeadSize, TimeLimit


def test_the_fields_of_a_head_count_and_those_of_the_next_count_anew() -> None:
    size = HeadSize(100)
    assert not size.field(60)
    assert not size.field(40)
    assert size.field(1)
    size.begin()
    assert not size.field(100)


def test_a_field_without_an_end_counts_by_what_has_come() -> None:
    size = HeadSize(100)
    for total in (40, 80):
        size.begin_read()
        assert not size.read(40), total
    size.begin_read()
    assert size.read(40)


def test_what_moves_a_request_on_is_no_endless_field_however_large_it_is() -> None:
    size = HeadSize(100)
    size.begin_read()
    assert not size.read(60)
    size.begin_read()
    size.moved()
    assert not size.read(1000)
    size.begin_read()
    assert not size.read(60), "what came before it counts no more"
    size.begin_read()
    assert size.read(60)


async def test_a_connection_has_one_time_at_a_moment_and_a_body_its_whole_time_beside_it() -> None:
    guard = Guard(CommonSettings().http_limits())
    transport = cast(asyncio.Transport, object())
    limit = TimeLimit(guard, transport)

    def running() -> list[int]:
        return [len(deadlines) for deadlines in (guard.heads, guard.pieces, guard.totals, guard.idle)]

    assert running() == [1, 0, 0, 0]
    limit.set(guard.pieces)
    assert running() == [0, 1, 1, 0]
    limit.set(guard.idle)
    assert running() == [0, 0, 0, 1]
    limit.set(None)
    assert running() == [0, 0, 0, 0]
    limit.restart()
    assert running() == [0, 0, 0, 0], "there is none to begin anew"


async def test_each_piece_of_a_body_has_its_own_time() -> None:
    guard = Guard(CommonSettings().http_limits())
    first, other = (cast(asyncio.Transport, object()) for _ in range(2))
    limits = [TimeLimit(guard, transport) for transport in (first, other)]
    for limit in limits:
        limit.set(guard.pieces)
    limits[0].read(PIECE_BYTES - 1)
    assert list(guard.pieces._due) == [first, other]
    limits[0].read(1)
    assert list(guard.pieces._due) == [other, first], "it is the last one to be due"
    for limit in limits:
        limit.set(None)
