"""The tap on what NATS sends: whatever pieces it comes in, each message goes where it belongs, in order."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidegate_common.bus.wire.tap import Direct, Tap

DIRECT, OTHER = 1, 2


class Recorder:
    """Whose connection it is: writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes, bytes, bytes, bytes]] = []
        self.lines: list[bytes] = []
        self.failures: list[tuple[bytes, Exception]] = []
        self.nonsense: list[bytes] = []

    def take_message(self, *message: Any) -> None:
        self.messages.append(message)

    def take_line(self, line: bytes) -> None:
        self.lines.append(line)

    def take_failure(self, subject: bytes, error: Exception) -> None:
        self.failures.append((subject, error))

    def take_nonsense(self, line: bytes) -> None:
        self.nonsense.append(line)


def tapped(deliver: Any) -> tuple[Tap, Recorder]:
    """A tap with one direct subscription, DIRECT, and whoever it tells of all else."""
    subscription, recorder = Direct(), Recorder()
    subscription.deliver = deliver
    return Tap({DIRECT: subscription}, recorder, {"in_msgs": 0}), recorder


def message(
    sid: int, payload: bytes, header: bytes | None = None, reply: bytes = b"", subject: bytes = b"a.b"
) -> bytes:
    """As nats-server writes it."""
    reply = reply and reply + b" "
    if header is None:
        return b"MSG %s %d %s%d\r\n%s\r\n" % (subject, sid, reply, len(payload), payload)
    size = len(header) + len(payload)
    return b"HMSG %s %d %s%d %d\r\n%s%s\r\n" % (subject, sid, reply, len(header), size, header, payload)


SUBJECTS = st.binary(min_size=1, max_size=20).filter(lambda subject: not set(subject) & set(b" \t\n"))
"""Any that a client can publish on: the server splits a line at blanks and tabs, and ends it at a line feed."""
HEADERS = st.none() | st.binary(max_size=40)
MESSAGES = st.tuples(
    st.sampled_from([DIRECT, OTHER]),
    st.binary(max_size=30) | st.just(b"\r\nMSG a.b 1 3\r\nabc\r\n"),
    HEADERS,
    st.just(b"") | SUBJECTS,
    SUBJECTS,
)
COMMANDS = st.sampled_from([b"PING\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n', b"-ERR 'x'\r\n", b"-ERR\r\n", b"PONG\r\n"])


def in_pieces(wire: bytes, sizes: list[int]) -> list[bytes]:
    pieces, turn = [], 0
    while wire:
        size = sizes[turn % len(sizes)]
        pieces.append(wire[:size])
        wire, turn = wire[size:], turn + 1
    return pieces


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=20)


@given(st.lists(MESSAGES | COMMANDS, max_size=12), SIZES)
def test_pieces_of_any_size_give_the_same_messages_and_lines_whatever_bytes_are_in_them(
    sent: list[Any], sizes: list[int]
) -> None:
    """A subject may hold bytes that Python takes for white space, or that are no UTF-8: such a message ended the reader
    of the whole connection."""
    got: list[tuple[bytes, bytes, bytes]] = []
    tap, recorder = tapped(lambda *found: got.append(found))
    for piece in in_pieces(b"".join(each if isinstance(each, bytes) else message(*each) for each in sent), sizes):
        tap.feed(piece)
    messages = [each for each in sent if not isinstance(each, bytes)]
    assert got == [(subject, head or b"", body) for sid, body, head, _, subject in messages if sid == DIRECT]
    assert recorder.messages == [
        (sid, subject, reply, head or b"", body) for sid, body, head, reply, subject in messages if sid == OTHER
    ]
    assert recorder.lines == [each[:-2] for each in sent if isinstance(each, bytes)]
    assert not recorder.nonsense


@given(st.lists(st.binary(max_size=60) | COMMANDS | MESSAGES.map(lambda each: message(*each)), max_size=12), SIZES)
def test_no_bytes_at_all_raise_and_once_the_place_is_lost_nothing_more_comes(
    sent: list[bytes], sizes: list[int]
) -> None:
    tap, recorder = tapped(lambda *_: None)
    for piece in in_pieces(b"".join(sent), sizes):
        tap.feed(piece)
    assert len(recorder.nonsense) <= 1
    assert tap.closed == bool(recorder.nonsense)


def test_a_long_message_in_small_pieces_is_put_together_once() -> None:
    """All that had come was copied for each piece: 64 MB in pieces of 64 KB were 32 GB of copying."""
    got: list[bytes] = []
    tap, _ = tapped(lambda _, __, payload: got.append(payload))
    payload = bytes(1 << 20) + b"end"
    for piece in in_pieces(message(DIRECT, payload) + message(DIRECT, b"next"), [100]):
        tap.feed(piece)
    assert got == [payload, b"next"]


def test_what_is_no_message_keeps_its_place_between_messages() -> None:
    order: list[bytes] = []
    tap, recorder = tapped(lambda _, __, payload: order.append(payload))
    recorder.take_line = order.append  # type: ignore[assignment,method-assign]
    tap.feed(message(DIRECT, b"1") + b"PING\r\n" + message(DIRECT, b"2") + b"+OK\r\n")
    assert order == [b"1", b"PING", b"2", b"+OK"]


def test_a_message_that_can_not_be_handled_is_told_and_does_not_stop_the_next() -> None:
    got: list[bytes] = []
    error = ValueError()

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        got.append(payload)
        if payload == b"bad":
            raise error

    tap, recorder = tapped(deliver)
    tap.feed(message(DIRECT, b"bad", subject=b"\xff") + message(DIRECT, b"good"))
    assert got == [b"bad", b"good"]
    assert recorder.failures == [(b"\xff", error)]


def test_a_connection_that_was_given_up_in_the_middle_of_a_read_hands_nothing_over_any_more() -> None:
    got: list[bytes] = []
    tap, recorder = tapped(lambda _, __, payload: got.append(payload))

    def give_up(_: bytes) -> None:
        tap.closed = True

    recorder.take_line = give_up  # type: ignore[assignment,method-assign]
    tap.feed(message(DIRECT, b"1") + b"-ERR 'x'\r\n" + message(DIRECT, b"2"))
    tap.feed(message(DIRECT, b"3"))
    assert got == [b"1"]


def test_what_is_asked_for_at_the_end_of_a_read_comes_once_after_its_last_message() -> None:
    order: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        order.append(payload)
        if payload == b"1":
            assert tap.at_end_of_read(lambda: order.append(b"end"))

    tap, _ = tapped(deliver)
    tap.feed(message(DIRECT, b"1") + message(DIRECT, b"2"))
    assert order == [b"1", b"2", b"end"]
    assert not tap.at_end_of_read(lambda: order.append(b"never"))
    tap.feed(message(DIRECT, b"3"))
    assert order == [b"1", b"2", b"end", b"3"]


def test_an_end_of_a_read_that_fails_is_the_only_thing_that_fails() -> None:
    got: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        got.append(payload)
        assert tap.at_end_of_read(fail)
        assert tap.at_end_of_read(lambda: got.append(b"end"))

    def fail() -> None:
        raise ValueError

    tap, _ = tapped(deliver)
    tap.feed(message(DIRECT, b"1"))
    assert not tap.at_end_of_read(fail)
    tap.feed(message(DIRECT, b"2"))
    assert got == [b"1", b"end", b"2", b"end"]


def test_the_end_of_a_read_comes_where_what_was_read_makes_no_sense_too() -> None:
    got: list[bytes] = []

    def deliver(_: bytes, __: bytes, payload: bytes) -> None:
        got.append(payload)
        tap.at_end_of_read(lambda: got.append(b"end"))

    tap, recorder = tapped(deliver)
    tap.feed(message(DIRECT, b"1") + b"MSG a.b 1 many\r\n")
    assert got == [b"1", b"end"]
    assert recorder.nonsense == [b"MSG a.b 1 many"]
