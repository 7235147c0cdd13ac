"""Sessions end with what says who they are. Time passes when the test says so."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

from gateway import frame
from gateway.hub.expiry import AT_ONCE, NOTICE_SECONDS, NOTICE_SPREAD_SECONDS, Expiry
from tests.support.hub import Peer, World
from tidegate_common.contract.principal import Principal

NOW = 1_000_000.5
LONGEST = NOTICE_SECONDS + NOTICE_SPREAD_SECONDS


class Scene:
    def __init__(self) -> None:
        self.now = NOW
        self.world = World()
        self.expiry = Expiry(self.world.hub, lambda: self.now)

    def peer(self, seconds: float, principal: Principal | None = None) -> Peer:
        peer = self.world.peer("user.ann")
        peer.principal = principal or Principal("user:ann", subject="ann", expires=NOW + seconds if seconds else 0)
        self.expiry.keep(peer)
        return peer

    async def at(self, seconds: float) -> None:
        self.now = NOW + seconds
        await self.expiry.turn()


def seconds_told(peer: Peer) -> list[int]:
    events = [event for chunks in peer.writes for event in parsed(chunks)]
    return [json.loads(event.data)["seconds"] for event in events if event.event_type == b"expiring"]


def parsed(chunks: bytes) -> list[frame.ParsedEvent]:
    return list(frame.events(chunks)) if chunks.endswith(b"\r\n") else []


async def test_a_session_is_told_once_and_ended_at_its_end() -> None:
    scene = Scene()
    peer = scene.peer(100)
    await scene.at(100 - LONGEST - 1)
    assert peer.writes == []
    await scene.at(100 - NOTICE_SECONDS + 1)
    assert [0 < each <= LONGEST for each in seconds_told(peer)] == [True]
    await scene.at(99)
    assert peer.ending is None
    await scene.at(101)
    assert peer.writes[-1] == b"token_expired"
    assert len(seconds_told(peer)) == 1
    assert scene.expiry.waiting == 0


async def test_who_has_not_long_any_more_is_ended_without_a_notice() -> None:
    """It would come back with the same token at once, for ever."""
    scene = Scene()
    peer = scene.peer(NOTICE_SECONDS - 1)
    for second in range(NOTICE_SECONDS - 1):
        await scene.at(second)
    assert peer.writes == []
    await scene.at(NOTICE_SECONDS)
    assert peer.writes == [b"token_expired"]


async def test_who_reads_nothing_is_not_told_and_ends_all_the_same() -> None:
    scene = Scene()
    peer = scene.peer(100)
    peer.paused = True
    await scene.at(80)
    assert peer.writes == []
    await scene.at(101)
    assert peer.writes == [b"token_expired"]


async def test_what_has_no_end_is_not_kept() -> None:
    scene = Scene()
    scene.peer(0)
    assert scene.expiry.waiting == 0


async def test_who_comes_and_goes_leaves_nothing() -> None:
    scene = Scene()
    token = Principal("user:ann", subject="ann", expires=NOW + 3600)
    for _ in range(1_000):
        scene.expiry.forget(scene.peer(0, token))
    told = scene.peer(35)
    await scene.at(10)
    scene.expiry.forget(told)
    assert scene.expiry._due == {}


async def test_notices_of_one_second_are_spread() -> None:
    """Each makes its client ask the application for a token."""
    scene = Scene()
    token = Principal("user:ann", subject="ann", expires=NOW + 3600)
    peers = [scene.peer(0, token) for _ in range(1_000)]
    counts = []
    for second in range(3600 - LONGEST, 3600 - NOTICE_SECONDS + 2):
        await scene.at(second)
        counts.append(sum(1 for peer in peers if peer.writes))
    assert counts[-1] == 1_000
    assert max(after - before for before, after in pairwise(counts)) < 400


async def test_many_that_end_at_once_leave_the_loop_to_others() -> None:
    scene = Scene()
    token = Principal("user:ann", subject="ann", expires=NOW + 5)
    peers = [scene.peer(0, token) for _ in range(3 * AT_ONCE)]
    scene.now = NOW + 6
    turn = asyncio.ensure_future(scene.expiry.turn())
    await asyncio.sleep(0)
    ended = sum(peer.ending is not None for peer in peers)
    assert ended == AT_ONCE
    leaving = next(peer for peer in peers if peer.ending is None)
    scene.expiry.forget(leaving)
    await turn
    assert leaving.writes == []
    assert sum(peer.ending is not None for peer in peers) == len(peers) - 1


async def test_a_clock_that_is_set_ends_nobody_twice() -> None:
    scene = Scene()
    peer = scene.peer(100)
    await scene.at(40_000_000)
    await scene.at(0)
    assert peer.writes == [b"token_expired"]
