"""The tap on what NATS sends: whatever pieces it comes in, each message goes where it belongs, in order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.bus.tap import Direct, Tap

DIRECT, OTHER = 1, 2


def message(sid: int, payload: bytes, header: bytes | None, reply: bytes) -> bytes:
    reply = reply and reply + b" "
    if header is None:
        return b"MSG a.b %d %s%d\r\n%s\r\n" % (sid, reply, len(payload), payload)
    size = len(header) + len(payload)
    return b"HMSG a.b %d %s%d %d\r\n%s%s\r\n" % (sid, reply, len(header), size, header, payload)


HEADERS = st.none() | st.binary(max_size=20).map(lambda value: b"NATS/1.0\r\nK: %s\r\n\r\n" % value.hex().encode())
MESSAGES = st.tuples(
    st.sampled_from([DIRECT, OTHER]),
    st.binary(max_size=30) | st.just(b"\r\nMSG a.b 1 3\r\nabc\r\n"),
    HEADERS,
    st.sampled_from([b"", b"_INBOX.x"]),
)
COMMANDS = st.sampled_from([b"PING\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n', b"-ERR 'x'\r\n"])


@given(st.lists(MESSAGES | COMMANDS, max_size=12), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_pieces_of_any_size_give_the_same_messages_and_leave_the_rest_as_it_was(
    sent: list[Any], sizes: list[int]
) -> None:
    got: list[tuple[bytes, bytes, bytes]] = []
    rest: list[bytes] = []
    subscription = Direct()
    subscription.deliver = lambda *found: got.append(found)
    stats = {"in_msgs": 0}
    tap = Tap({DIRECT: subscription}, rest.append, stats)
    wire = b"".join(each if isinstance(each, bytes) else message(*each) for each in sent)
    turn = 0
    while wire:
        size = sizes[turn % len(sizes)]
        tap.feed(wire[:size])
        wire, turn = wire[size:], turn + 1
    direct = [each for each in sent if not isinstance(each, bytes) and each[0] == DIRECT]
    assert got == [(b"a.b", header or b"", payload) for _, payload, header, _ in direct]
    others = [each if isinstance(each, bytes) else message(*each) for each in sent if each not in direct]
    assert b"".join(rest) == b"".join(others)
    assert stats["in_msgs"] == len(direct)


def test_what_the_tap_passes_on_keeps_its_place_between_direct_messages() -> None:
    order: list[bytes] = []
    subscription = Direct()
    subscription.deliver = lambda _, __, payload: order.append(payload)
    tap = Tap({DIRECT: subscription}, order.append, {"in_msgs": 0})
    tap.feed(message(DIRECT, b"1", None, b"") + b"PING\r\n" + message(DIRECT, b"2", None, b"") + b"+OK\r\n")
    assert order == [b"1", b"PING\r\n", b"2", b"+OK\r\n"]


def test_a_message_that_can_not_be_handled_does_not_stop_the_next() -> None:
    got: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        got.append(payload)
        if payload == b"bad":
            raise ValueError(payload)

    subscription = Direct()
    subscription.deliver = deliver
    tap = Tap({DIRECT: subscription}, got.append, {"in_msgs": 0})
    tap.feed(message(DIRECT, b"bad", None, b"") + message(DIRECT, b"good", None, b""))
    assert got == [b"bad", b"good"]


def test_what_is_asked_for_at_the_end_of_a_read_comes_once_after_its_last_message() -> None:
    order: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        order.append(payload)
        if payload == b"1":
            assert tap.at_end_of_read(lambda: order.append(b"end"))

    subscription = Direct()
    subscription.deliver = deliver
    tap = Tap({DIRECT: subscription}, order.append, {"in_msgs": 0})
    tap.feed(message(DIRECT, b"1", None, b"") + message(DIRECT, b"2", None, b""))
    assert order == [b"1", b"2", b"end"]
    assert not tap.at_end_of_read(lambda: order.append(b"never"))
    tap.feed(message(DIRECT, b"3", None, b""))
    assert order == [b"1", b"2", b"end", b"3"]


def test_an_end_of_a_read_that_fails_is_the_only_thing_that_fails() -> None:
    got: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        got.append(payload)
        assert tap.at_end_of_read(fail)
        assert tap.at_end_of_read(lambda: got.append(b"end"))

    def fail() -> None:
        raise ValueError

    subscription = Direct()
    subscription.deliver = deliver
    tap = Tap({DIRECT: subscription}, got.append, {"in_msgs": 0})
    tap.feed(message(DIRECT, b"1", None, b""))
    assert not tap.at_end_of_read(fail)
    tap.feed(message(DIRECT, b"2", None, b""))
    assert got == [b"1", b"end", b"2", b"end"]


def test_the_end_of_a_read_comes_where_what_was_read_makes_no_sense_too() -> None:
    got: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        got.append(payload)
        tap.at_end_of_read(lambda: got.append(b"end"))

    subscription = Direct()
    subscription.deliver = deliver
    tap = Tap({DIRECT: subscription}, got.append, {"in_msgs": 0})
    with pytest.raises(ValueError):
        tap.feed(message(DIRECT, b"1", None, b"") + b"MSG a.b 1 many\r\n")
    assert got == [b"1", b"end"]
