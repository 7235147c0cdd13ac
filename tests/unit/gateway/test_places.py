"""How far tails were heard: what a repair begins with, and who may be live."""

from gateway.feed.places import UNKNOWN, Places, matches, settle, verified
from gateway.hub.hub import Audience
from tests.support.hub import World

OUTBOUND = "tg.out."


def audience(tail: str, heard: int, **by_subject: int) -> Audience:
    made = Audience(tail)
    made.heard = heard
    if made.heard_by_subject is not None:
        made.heard_by_subject |= {f"{OUTBOUND}topic.t.{name}".encode(): last for name, last in by_subject.items()}
    return made


def test_a_tail_with_wildcards_has_a_place_on_each_of_its_subjects() -> None:
    places = Places([audience("topic.t.*", 10, x=20)], OUTBOUND)
    assert places.start("topic.t.*") == 10
    had = [places.had(("topic.t.*",), tail, sequence) for tail in ("topic.t.x", "topic.t.y") for sequence in (10, 20)]
    assert had == [True, True, True, False]


def test_what_one_of_two_overlapping_tails_has_heard_is_missing_on_none() -> None:
    places = Places([audience("topic.t.*", 5), audience("topic.*.x", 9)], OUTBOUND)
    both = ("topic.t.*", "topic.*.x")
    assert places.had(both, "topic.t.x", 9)
    assert not places.had(both, "topic.t.y", 9)
    assert not places.had(("topic.t.*",), "topic.t.x", 9)


def test_what_is_missing_is_told_by_what_the_stream_has_last() -> None:
    places = Places([audience("topic.t.*", 10, x=20)], OUTBOUND)
    assert places.missing("topic.t.*", {"topic.t.x": 20, "topic.t.y": 10}) == 0
    assert places.missing("topic.t.*", {"topic.t.x": 25, "topic.t.y": 14}) == 25
    assert places.missing("topic.t.*", {}) == 0
    assert places.missing("topic.t.*", None) == UNKNOWN


def test_places_stay_where_they_were_when_the_audience_goes_on() -> None:
    going = audience("topic.t.*", 10, x=20)
    places = Places([going], OUTBOUND)
    verified(going, 30)
    assert going.heard_by_subject == {}
    assert not places.had(("topic.t.*",), "topic.t.y", 30)
    assert places.had(("topic.t.*",), "topic.t.x", 20)


def test_a_jobs_own_stream_hears_what_is_sent_to_its_tail() -> None:
    assert matches("client.a#0123", "client.a")
    assert matches("topic.>", "topic.t.x")
    assert not matches("client.a#0123", "client.b")


def test_a_newcomers_place_is_that_of_its_tails_if_nobody_else_is_live_there() -> None:
    world = World()
    newcomer = world.peer("broadcast", live=False)
    heard = world.wire.audiences["broadcast"]
    assert settle(world.hub, newcomer.tails, 7)
    assert (heard.heard, heard.complete_from) == (7, 7)


def test_a_newcomers_place_hides_nothing_from_those_who_are_live() -> None:
    world = World()
    world.peer("broadcast")
    newcomer, heard = world.peer("broadcast", live=False), world.wire.audiences["broadcast"]
    heard.heard = 4
    assert settle(world.hub, newcomer.tails, 7)
    assert heard.heard == 4


def test_who_joins_with_an_earlier_place_than_another_who_joined_first_reads_once_more() -> None:
    """What came between the two places was heard by nobody: the later place says nothing of it."""
    world = World()
    later, earlier = world.peer("broadcast", live=False), world.peer("broadcast", live=False)
    assert settle(world.hub, later.tails, 9)
    world.hub.release(later)
    assert not settle(world.hub, earlier.tails, 7)
    assert settle(world.hub, earlier.tails, 9)


def test_who_has_not_read_up_to_a_hole_is_not_live() -> None:
    world = World()
    newcomer = world.peer("client.a", "broadcast", live=False)
    world.wire.audiences["broadcast"].complete_from = 8
    assert not settle(world.hub, newcomer.tails, 7)
    assert world.wire.audiences["client.a"].heard == -1, "nothing is moved by who is not live yet"
    assert settle(world.hub, newcomer.tails, 8)
