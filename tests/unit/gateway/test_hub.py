import asyncio

import pytest

from gateway.hub.endings import Ending
from gateway.hub.heartbeat import SLICES, STALLED_BEATS, Heartbeat
from gateway.hub.hub import Hub
from gateway.hub.session import Session
from tests.support.hub import Peer, World
from tests.support.skipping_loop import skipping_loop


def test_all_that_a_pass_has_for_a_session_is_one_write_in_arrival_order() -> None:
    world = World()
    peer = world.peer("broadcast", "client.a")
    world.durable("client.a", 1)
    world.durable("broadcast", 2)
    world.volatile("client.a", b"v")
    world.durable("client.a", 3)
    assert peer.writes == []
    assert len(world.scheduled) == 1
    world.end_pass()
    assert peer.writes == [b"1;2;v;3;"]
    assert world.hub.sent == 4


def test_an_event_goes_to_every_session_of_its_audience_and_to_no_other() -> None:
    world = World()
    first, second, other = world.peer("user.u"), world.peer("user.u"), world.peer("client.c")
    world.durable("user.u", 5)
    world.end_pass()
    assert (first.writes, second.writes, other.writes) == ([b"5;"], [b"5;"], [])


def test_an_event_that_overlapping_subscriptions_bring_twice_is_written_once() -> None:
    world = World()
    peer = world.peer("topic.a.*", "topic.*.b", overlapping=True)
    for tail in ("topic.a.*", "topic.*.b"):
        world.durable(tail, 7)
        world.volatile(tail, b"v1")
    world.end_pass()
    assert peer.writes == [b"7;v1;"]
    assert world.hub.sent == 2


def test_interest_follows_who_is_connected() -> None:
    world = World()
    first, second = world.peer("broadcast", "client.a"), world.peer("broadcast")
    assert set(world.wire.audiences) == {"broadcast", "client.a"}
    first.lost()
    assert set(world.wire.audiences) == {"broadcast"}
    second.lost()
    assert world.wire.audiences == {}
    assert world.hub.sessions == {}
    assert world.hub.audiences == 0
    assert world.hub.ended["client"] == 2


def test_live_events_wait_while_the_past_is_read_and_repeats_of_it_are_left_out() -> None:
    world = World()
    peer = world.peer("broadcast", live=False)
    world.durable("broadcast", 4)
    world.volatile("broadcast", b"v")
    world.durable("broadcast", 5)
    peer.position = 4
    world.hub.release(peer)
    world.durable("broadcast", 6)
    world.end_pass()
    assert peer.writes == [b"v;5;6;"]


def test_a_hold_without_room_breaks_so_that_the_stream_is_read_again() -> None:
    world = World(max_held_bytes=10)
    peer = world.peer("broadcast", live=False)
    world.durable("broadcast", 1, b"x" * 8)
    world.volatile("broadcast", b"v", b"y" * 8)
    assert world.hub.dropped == 1
    assert peer.held is not None
    first = peer.held
    world.durable("broadcast", 1, b"")
    assert [first.broken, len(first.events)] == [False, 2]
    world.durable("broadcast", 2, b"z" * 8)
    assert [first.broken, len(first.events)] == [True, 0]
    held = world.hub.hold(peer)
    world.durable("broadcast", 3)
    peer.position = 2
    assert not held.broken
    world.hub.release(peer)
    world.end_pass()
    assert peer.writes == [b"3;"]


def test_a_slow_session_misses_volatile_events_and_is_closed_for_a_durable_one() -> None:
    world = World()
    peer, healthy = world.peer("broadcast"), world.peer("broadcast")
    peer.set_paused(True)
    world.volatile("broadcast", b"v")
    world.end_pass()
    assert peer.writes == []
    assert world.hub.dropped == 1
    world.durable("broadcast", 1)
    world.end_pass()
    assert peer.writes == [b"slow"]
    assert peer.ending is Ending.SLOW
    assert healthy.writes == [b"v;", b"1;"]


def test_a_session_that_has_ended_and_is_not_gone_yet_costs_nothing_more() -> None:
    """A peer that reads nothing has seconds to take its farewell: all that came meanwhile was kept beside it."""
    world = World()
    peer = world.peer("client.a")
    peer.set_paused(True)
    for sequence in range(1, 9, 2):
        world.durable("client.a", sequence)
        world.durable("client.a", sequence + 1)
        world.end_pass()
        assert peer.ending is Ending.SLOW
        assert peer.pending is None
    assert peer.writes == [b"slow"]


def test_what_a_pass_has_for_a_session_comes_before_its_farewell() -> None:
    world = World()
    peer = world.peer("broadcast")
    world.durable("broadcast", 1)
    world.hub.end(peer, Ending.DRAIN)
    world.end_pass()
    world.hub.end(peer, Ending.IDLE)
    assert peer.writes == [b"1;", b"drain"]


def keeper(world: World, **limits: float) -> Heartbeat:
    settings = {"heartbeat_seconds": 15.0, "idle_seconds": 0.0, "max_age_seconds": 0.0} | limits
    return Heartbeat(world.hub, b":", lambda: 100.0, **settings)


def test_a_heartbeat_goes_to_every_kept_session_once_in_a_round() -> None:
    world = World()
    kept = keeper(world)
    peers = [world.peer("broadcast") for _ in range(50)]
    for peer in peers:
        kept.keep(peer)
    for turn in range(SLICES):
        kept.beat(kept._slices[turn])
    assert [peer.writes for peer in peers] == [[b":"]] * 50


def test_a_session_without_events_for_the_idle_time_is_closed_and_an_event_starts_the_time_anew() -> None:
    world = World()
    kept = keeper(world, idle_seconds=30.0)
    quiet, busy = world.peer("client.q"), world.peer("client.b")
    sessions: dict[Session, None] = {quiet: None, busy: None}
    for number in range(3):
        world.durable("client.b", number + 1)
        world.end_pass()
        kept.beat(sessions)
    assert quiet.ending is Ending.IDLE
    assert busy.ending is None


def test_a_session_over_its_age_is_closed_and_one_that_takes_nothing_is_given_up() -> None:
    world = World()
    old, stuck = world.peer("client.o"), world.peer("client.s")
    keeper(world, max_age_seconds=99.0).beat({old: None})
    assert old.ending is Ending.MAX_AGE
    stuck.set_paused(True)
    for _ in range(STALLED_BEATS + 1):
        keeper(world).beat({stuck: None})
    assert stuck.ending is Ending.SLOW


def drained(sessions: int, seconds: float) -> list[float]:
    """When a drain of `seconds` ended each of so many sessions, counted from the first."""
    with skipping_loop() as loop:
        return loop.run_until_complete(_drained(sessions, seconds))


async def _drained(sessions: int, seconds: float) -> list[float]:
    loop, times = asyncio.get_running_loop(), list[float]()

    def farewell(_: Ending) -> bytes:
        times.append(loop.time())
        return b""

    hub, peers = Hub(loop.call_soon, farewell), [Peer() for _ in range(sessions)]
    for peer in peers:
        hub.add(peer, ["broadcast"], overlapping=False)
    await Heartbeat(hub, b":", loop.time, heartbeat_seconds=15, idle_seconds=0, max_age_seconds=0).drain(seconds)
    assert {peer.ending for peer in peers} == {Ending.DRAIN}
    return [at - times[0] for at in times]


def test_a_drain_ends_every_session_and_spreads_them_over_all_of_its_time() -> None:
    """It closed a hundred a second: 200 clients came back in 2 s though 8 were theirs."""
    times = drained(50, 0.8)
    assert max(abs(at - number * 0.8 / 50) for number, at in enumerate(times)) < 0.1
    assert times[-1] > 0.7


def test_a_drain_of_few_is_over_sooner() -> None:
    assert 0.1 < drained(3, 60)[-1] < 1
    assert drained(1, 60) == [0]


def test_releasing_a_broken_hold_is_a_fault_of_the_caller() -> None:
    world = World()
    peer = world.peer("broadcast", live=False)
    assert peer.held is not None
    peer.held.break_off()
    with pytest.raises(AssertionError, match="replayed"):
        world.hub.release(peer)


def test_who_listens_is_found_by_wildcards_once_each_and_a_wildcard_that_is_left_leaves_nothing() -> None:
    world = World()
    both, wide, ended = world.peer("topic.a", "topic.*", overlapping=True), world.peer("topic.>"), world.peer("topic.a")
    world.peer("topic.b")
    world.hub.end(ended, Ending.KICKED)
    assert set(world.hub.listening("topic.a")) == {both, wide}
    assert len(world.hub.listening("topic.a")) == 2
    for peer in (both, wide):
        peer.lost()
    assert world.hub.listening("topic.a") == []
    assert world.hub._wide == {}


def test_a_session_that_is_released_in_the_middle_of_a_pass_gets_what_was_held_in_order_and_once() -> None:
    world = World()
    live, joining = world.peer("broadcast"), world.peer("broadcast", live=False)
    world.durable("broadcast", 1)
    world.end_pass()
    world.durable("broadcast", 2)
    world.hub.release(joining)
    world.durable("broadcast", 3)
    world.end_pass()
    assert b"".join(joining.writes) == b"".join(live.writes) == b"1;2;3;"


def test_the_order_of_durable_and_volatile_events_of_a_pass_is_kept_whichever_is_first() -> None:
    world = World()
    peer, other = world.peer("broadcast", "client.a"), world.peer("broadcast")
    world.durable("broadcast", 1)
    world.volatile("client.a", b"v")
    world.durable("broadcast", 2)
    world.end_pass()
    world.volatile("client.a", b"w")
    world.durable("broadcast", 3)
    world.end_pass()
    assert b"".join(peer.writes) == b"1;v;2;w;3;"
    assert b"".join(other.writes) == b"1;2;3;"


def test_a_session_that_is_ended_in_a_pass_gets_what_came_before_and_the_farewell() -> None:
    world = World()
    peer, other = world.peer("broadcast"), world.peer("broadcast")
    world.durable("broadcast", 1)
    world.hub.end(peer, Ending.KICKED)
    world.end_pass()
    assert peer.writes == [b"1;", b"kicked"]
    assert other.writes == [b"1;"]
