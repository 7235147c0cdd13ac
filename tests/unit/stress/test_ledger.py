"""The accounts of the stress run: each kind of fault turns them red."""

import pytest

from tests.stress.ledger import NO_PLACE, Ledger, Verdict, View
from tests.stress.wire import StreamReader

TARGETS = ("client:ann", "all")


def ledger_of_five() -> Ledger:
    """Numbers 1 to 5 under sequences 11 to 15; 4 is for another client."""
    ledger = Ledger()
    for sequence, target in enumerate(("client:ann", "all", "client:ann", "client:bob", "all"), 11):
        ledger.accept(ledger.send(target), sequence)
    return ledger


def view(*numbers: int, start: int = 10) -> View:
    seen = View(TARGETS, start)
    seen.numbers.extend(numbers)
    seen.places.extend(10 + number for number in numbers)
    return seen


def test_all_events_once_in_order_are_clean() -> None:
    verdict = ledger_of_five().judge(view(1, 2, 3, 5))
    assert verdict == Verdict(delivered=4)
    assert verdict.clean


def test_events_from_before_the_first_connect_are_not_due() -> None:
    assert ledger_of_five().judge(view(3, 5, start=12)).clean


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ((1, 2, 5), "lost"),
        ((1, 2, 3), "lost"),
        ((1, 2, 2, 3, 5), "duplicated"),
        ((1, 3, 2, 5), "disordered"),
        ((1, 2, 3, 4, 5), "foreign"),
    ],
)
def test_each_kind_of_fault_is_counted_as_what_it_is(numbers: tuple[int, ...], kind: str) -> None:
    verdict = ledger_of_five().judge(view(*numbers))
    counts = {name: getattr(verdict, name) for name in ("lost", "duplicated", "disordered", "foreign")}
    assert counts == {**dict.fromkeys(counts, 0), kind: 1}
    assert not verdict.clean


def test_an_event_under_an_id_that_is_not_its_own_is_disordered() -> None:
    seen = view(1, 2, 3, 5)
    seen.places[1] = 13
    assert ledger_of_five().judge(seen).disordered == 1


def test_a_client_that_never_connected_has_lost_all_that_was_for_it() -> None:
    assert ledger_of_five().judge(View(TARGETS)).lost == 4


def test_an_event_that_was_stored_but_never_confirmed_may_come_and_may_not() -> None:
    ledger = ledger_of_five()
    unsure = ledger.send("all")
    assert ledger.judge(view(1, 2, 3, 5)).clean
    assert ledger.judge(view(1, 2, 3, 5, unsure)).clean


def test_a_gap_that_nothing_explains_is_a_fault_and_excuses_no_loss() -> None:
    seen = view(1, 2, 5)
    seen.tell("expired", 12, 14)
    verdict = ledger_of_five().judge(seen)
    assert (verdict.gaps, verdict.surprises, verdict.lost) == (1, 1, 1)


def test_an_expected_gap_excuses_what_it_names_and_nothing_after_it() -> None:
    seen = view(1, 2)
    seen.expected.append("expired")
    seen.tell("expired", 12, 14)
    assert ledger_of_five().judge(seen) == Verdict(delivered=2, lost=1, gaps=1)


@pytest.mark.parametrize("told", [[], ["epoch"], ["expired", "expired"]])
def test_a_gap_that_is_not_told_or_with_another_reason_or_twice_is_a_fault(told: list[str]) -> None:
    seen = view(1, 2, 3, 5)
    seen.expected.append("expired")
    for reason in told:
        seen.tell(reason, 15, 15)
    assert not ledger_of_five().judge(seen).clean


def test_an_event_without_an_id_is_a_fault_unless_it_may_be_late_and_later_ones_came_before() -> None:
    seen = view(1, 3, 2, 5)
    seen.places[2] = NO_PLACE
    assert ledger_of_five().judge(seen).disordered == 1
    seen.may_be_late = True
    assert ledger_of_five().judge(seen).clean
    early = view(1, 2, 3, 5)
    early.may_be_late, early.places[1] = True, NO_PLACE
    assert ledger_of_five().judge(early).disordered == 1, "nothing later had come: it would be replayed"


def test_a_volatile_event_may_be_missing_but_not_come_twice_or_with_an_id() -> None:
    ledger = ledger_of_five()
    volatile = ledger.send("all", volatile=True)
    seen = view(1, 2, 3, 5)
    assert ledger.judge(seen).clean
    seen.numbers.append(volatile)
    seen.places.append(NO_PLACE)
    assert ledger.judge(seen).clean
    seen.numbers.append(volatile)
    seen.places.append(16)
    assert ledger.judge(seen).duplicated == 1
    seen.numbers.pop(-2)
    seen.places.pop(-2)
    assert ledger.judge(seen).disordered == 1


def test_a_place_in_the_next_life_of_the_stream_comes_after_all_of_the_one_before() -> None:
    ledger = Ledger()
    assert ledger.place("a-900") < ledger.place("b-1") < ledger.place("b-2")
    assert ledger.place("a-900") > ledger.place("a-899")


def test_the_lean_reader_takes_a_stream_in_pieces_of_any_size() -> None:
    body = [b"retry: 5\nid: e-1\nevent: connected\ndata: {}\n\n", b": heartbeat\n", b"id: e-2\ndata: a\ndata: b\n\n"]
    stream = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*body, b""))
    for size in (1, 2, 7, 1000):
        reader = StreamReader()
        found = [tuple(frame) for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])]
        assert found == [("e-1", "connected", "{}"), ("e-2", "message", "a\nb")], size
        assert reader.ended


def test_after_an_expected_gap_of_the_kind_epoch_events_may_come_again_but_each_once_and_in_order() -> None:
    for again, duplicated, disordered in (((1, 2, 3, 5), 0, 0), ((1, 1, 2, 3, 5), 1, 0), ((2, 1, 3, 5), 0, 1)):
        seen = view(1, 2)
        seen.expected.append("epoch")
        seen.tell("epoch", 12, 10)
        seen.numbers.extend(again)
        seen.places.extend(10 + number for number in again)
        verdict = ledger_of_five().judge(seen)
        assert (verdict.duplicated, verdict.disordered, verdict.lost) == (duplicated, disordered, 0)
