from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.bus.streams.lives import MOST_EARLIER, Earlier, Life, Notes
from tidegate_common.contract.ids import EventId


def test_an_id_of_before_holds_up_to_the_restored_place_and_one_past_it_does_not() -> None:
    life = Life("a").followed("b", 40)
    assert life == Life("b", (Earlier("a", 40),))
    assert [life.place(EventId("a", each)) for each in (0, 40, 41)] == [0, 40, None]
    assert life.place(EventId("b", 90)) == 90
    assert life.place(EventId("c", 1)) is None
    assert (life.shared("a"), life.shared("c")) == (40, None)


def test_a_second_restore_takes_from_every_life_before_it_what_it_lost() -> None:
    life = Life("a").followed("b", 40).followed("c", 30)
    assert life.earlier == (Earlier("a", 30), Earlier("b", 30))
    assert Life("a").followed("b", 40).followed("c", 60).earlier == (Earlier("a", 40), Earlier("b", 60))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_no_id_ever_names_another_event_than_the_one_that_it_was_given_for(steps: list[tuple[int, int]]) -> None:
    """Events are stored, and the stream is restored as it was at some place, again and again."""
    life, stream, given_for = Life("l0"), list[int](), dict[EventId, int]()
    for number, (stored, lost) in enumerate(steps, 1):
        for _ in range(stored):
            stream.append(len(given_for))
            event_id = EventId(life.epoch, len(stream))
            assert event_id not in given_for, "no id is given twice"
            given_for[event_id] = stream[-1]
        if lost:
            del stream[max(0, len(stream) - lost) :]
            life = life.followed(f"l{number}", len(stream))
        for event_id, event in given_for.items():
            place = life.place(event_id)
            if place is not None:
                assert stream[place - 1] == event
            elif life.shared(event_id.epoch) is not None:
                assert event not in stream
    assert len(life.earlier) <= MOST_EARLIER


@given(
    st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
    st.lists(st.tuples(st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True), st.integers(0, 1 << 64)), max_size=16),
    st.text(max_size=20),
)
def test_what_is_noted_is_read_as_it_was(epoch: str, earlier: list[tuple[str, int]], restored: str) -> None:
    notes = Notes(Life(epoch, tuple(Earlier(*each) for each in earlier)), "2026-01-01T00:00:00Z", restored)
    assert Notes.parse({"_nats.ver": "2.12", **notes.metadata()}) == notes


@given(
    st.dictionaries(st.sampled_from(["tidegate-epoch", "tidegate-created", "tidegate-earlier"]), st.text(max_size=9))
)
def test_notes_of_any_hand_are_read_or_not_and_never_an_error(metadata: dict[str, str]) -> None:
    notes = Notes.parse(metadata)
    assert notes is None or Notes.parse(notes.metadata()) == notes
