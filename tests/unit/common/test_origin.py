from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.bus.events.origin import Origin, Place, stamp
from tidegate_common.bus.wire import headers
from tidegate_common.contract.subjects import Subjects

EVENTS = Origin.of_events(Subjects.of("tg"))
NAMES = ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence"]


def served(before: bytes, *, stream: str = "TG_EVENTS", subject: str = "tg.in.client.a", batch: bool = False) -> bytes:
    """The block of a message whose publisher wrote `before`, as nats-server ends it."""
    pending = "Nats-Num-Pending: 3\r\n" if batch else ""
    fields = (
        f"Nats-Stream: {stream}\r\nNats-Subject: {subject}\r\nNats-Sequence: 12\r\n"
        f"Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\n{pending}Nats-Last-Sequence: 9\r\n\r\n"
    )
    return (before[:-2] if before else b"NATS/1.0\r\n") + fields.encode()


lines = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, *(name.lower() for name in NAMES)]),
        st.sampled_from([": ", ":", " : "]),
        st.sampled_from(["1", "999", "", "x", "TG_EVENTS", "tg.in.client.b"]) | st.text(max_size=8),
        st.sampled_from(["\r\n", "\n", "\r\n\r\n"]),
    ),
    max_size=16,
).map(lambda fields: b"NATS/1.0\r\n" + "".join("".join(each) for each in fields).encode("utf-8", "replace") + b"\r\n")


@given(st.just(b"") | lines | st.binary(min_size=2, max_size=200))
def test_the_place_is_the_one_that_the_server_wrote_whatever_stands_before_it(before: bytes) -> None:
    assert EVENTS.republished(served(before), b"tg.out.client.a") == (12, 9)
    assert EVENTS.got(served(before, batch=True)) == Place(12, 9, b"tg.in.client.a", 3)
    assert stamp(served(before)) == b"2026-01-01T00:00:00Z"


@given(lines)
def test_another_stream_s_message_and_one_that_was_sent_on_have_no_place_here(before: bytes) -> None:
    assert EVENTS.republished(served(before, stream="ORDERS"), b"tg.out.client.a") is None
    assert EVENTS.republished(served(before), b"tg.out.client.b") is None
    assert EVENTS.got(served(before, stream="ORDERS", batch=True)) is None
    assert EVENTS.republished(served(served(before), stream="ORDERS"), b"tg.out.client.a") is None


def test_what_was_never_stored_has_no_place_and_numbers_are_numbers() -> None:
    assert EVENTS.republished(b"", b"tg.out.client.a") is None
    assert stamp(b"") is None
    volatile = headers.block({"Tidegate-Event": "note", "Tidegate-Volatile": "v"})
    assert EVENTS.republished(volatile, b"tg.out.client.a") is None
    for bad in (b"x", b"", b"-1", b"1" * 21, b"\xb2"):
        block = served(b"").replace(b"Nats-Sequence: 12", b"Nats-Sequence: " + bad)
        assert EVENTS.republished(block, b"tg.out.client.a") is None
    for other in (b"Nats-Last-Sequence", b"Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Last-Sequence"):
        assert EVENTS.republished(served(b"").replace(other, b"Else"), b"tg.out.client.a") is None


def test_the_end_of_an_answer_is_no_message() -> None:
    assert EVENTS.got(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 5\r\n\r\n") is None
    assert EVENTS.got(b"NATS/1.0 404 No Results\r\n\r\n") is None
