"""The accounts of the stress run: each kind of fault turns them red."""

import pytest

from tests.stress.ledger import Ledger, Verdict, View
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
    seen.sequences.extend(10 + number for number in numbers)
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
    seen.sequences[1] = 13
    assert ledger_of_five().judge(seen).disordered == 1


def test_a_client_that_never_connected_has_lost_all_that_was_for_it() -> None:
    assert ledger_of_five().judge(View(TARGETS)).lost == 4


def test_an_event_that_was_stored_but_never_confirmed_may_come_and_may_not() -> None:
    ledger = ledger_of_five()
    unsure = ledger.send("all")
    assert ledger.judge(view(1, 2, 3, 5)).clean
    assert ledger.judge(view(1, 2, 3, 5, unsure)).clean


def test_a_gap_is_counted_and_excuses_no_loss() -> None:
    seen = view(1, 2, 5)
    seen.gaps = 1
    verdict = ledger_of_five().judge(seen)
    assert (verdict.gaps, verdict.lost) == (1, 1)


def test_the_lean_reader_takes_a_stream_in_pieces_of_any_size() -> None:
    body = [b"retry: 5\nid: e-1\nevent: connected\ndata: {}\n\n", b": heartbeat\n", b"id: e-2\ndata: a\ndata: b\n\n"]
    stream = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*body, b""))
    for size in (1, 2, 7, 1000):
        reader = StreamReader()
        found = [tuple(frame) for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])]
        assert found == [("e-1", "connected", "{}"), ("e-2", "message", "a\nb")], size
        assert reader.ended
