"""What frame.py writes, read by parsers that are not ours and by one written from the standard."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from gateway import frame
from tests.support.eventstream import EventStreamParser, Received

Event = tuple[bytes | None, bytes, bytes]

PIECES = st.sampled_from(
    ["\r", "\n", "\r\n", "\0", "\ufeff", ":", " ", "data: x", "id: 9", "\u2028", "\x85", "é", "😀"]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=8).map(lambda found: "".join(found).encode())
NAMES = st.from_regex(rb"[A-Za-z0-9_.\-]{1,12}", fullmatch=True)
EVENTS = st.lists(st.tuples(st.none() | NAMES, st.just(b"") | NAMES, TEXTS), max_size=6)


def written(events: list[Event]) -> bytes:
    return b"".join(frame.event(*event) for event in events)


def expected(events: list[Event]) -> list[tuple[str, str, str]]:
    found, last = [], ""
    for event_id, type_, payload in events:
        last = last if event_id is None else event_id.decode()
        found.append((last, type_.decode() or "message", re.sub(r"\r\n|\r", "\n", payload.decode())))
    return found


def read(text: bytes, cuts: list[int] | None = None) -> list[Received]:
    parser, found, places = EventStreamParser(), [], sorted({0, len(text), *(c % (len(text) + 1) for c in cuts or [])})
    for start, end in itertools.pairwise(places):
        found += parser.feed(text[start:end])
    return found


@given(EVENTS, st.lists(st.integers(0, 10_000), max_size=20))
def test_events_arrive_as_they_were_sent_wherever_the_stream_is_cut(events: list[Event], cuts: list[int]) -> None:
    found = read(written(events), cuts)
    assert [(one.id, one.event, one.data) for one in found] == expected(events)


@given(EVENTS)
def test_httpx_sse_reads_the_same_events(events: list[Event]) -> None:
    decoder = SSEDecoder()
    decoded = [decoder.decode(line) for line in re.split(r"\r\n|\r|\n", written(events).decode())[:-1]]
    assert [(one.id, one.event, one.data) for one in decoded if one is not None] == expected(events)


@given(st.none() | NAMES, st.binary(max_size=30), st.binary(max_size=60))
def test_any_bytes_make_exactly_one_event_of_valid_utf8(event_id: bytes | None, type_: bytes, payload: bytes) -> None:
    text = frame.event(event_id, type_, payload)
    text.decode()
    assert [one.id for one in read(text)] == ["" if event_id is None else event_id.decode()]


@given(st.binary(max_size=60))
def test_a_field_value_has_nothing_that_ends_its_line(raw: bytes) -> None:
    assert not set(frame.field_value(raw).decode()) & set("\r\n\0")


def test_an_empty_payload_is_delivered_as_empty_data() -> None:
    assert read(frame.event(b"1", b"note", b"")) == [Received("1", "note", "")]


def test_a_lone_surrogate_becomes_replacement_characters() -> None:
    assert set(read(frame.event(None, b"", "\ud800".encode("utf-8", "surrogatepass")))[0].data) == {"\ufffd"}


def test_a_very_long_line_arrives_whole() -> None:
    assert len(read(frame.event(None, b"", b"x" * 1_000_000), [7, 65_536])[0].data) == 1_000_000


def test_a_leading_bom_of_the_stream_is_dropped_and_one_of_the_data_is_kept() -> None:
    assert read(b"\xef\xbb\xbf" + frame.event(None, b"", "\ufeffx".encode()))[0].data == "\ufeffx"


BREAKS = "\u2028\u2029\x85"
VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from(BREAKS + '\ufeffa"\\\\n\x0b\0é–'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([None, 2]), st.sampled_from(["", " ", "\n"]))
def test_json_is_one_line_for_whoever_splits_text_by_all_of_unicodes_line_ends(
    value: object, indent: int | None, before: str
) -> None:
    """A client that reads by `splitlines` got an event with U+2028 in it in two pieces, neither of them JSON."""
    text = before + json.dumps(value, ensure_ascii=False, indent=indent)
    written = frame.event(b"1-1", b"note", text.encode()).decode()
    lines = [line for line in written.splitlines() if line.startswith("data: ")]
    assert json.loads("\n".join(line.removeprefix("data: ") for line in lines)) == value
    if isinstance(value, (dict, list, str)):
        assert not set(written) & set(BREAKS)


@pytest.mark.parametrize(
    "text",
    ["a\u2028b", "{a\u2028b}", '{"a":1}\u2028', '{"a":\u2028 1}', '["\x85"] and more', '"\u2029', "[" * 9999 + '"\x85'],
)
def test_text_keeps_its_line_separators(text: str) -> None:
    """There is no other way to say them in what is no JSON."""
    assert read(frame.event(None, b"", text.encode()))[0].data == text


@pytest.mark.parametrize("event_id", [b"5-7", None])
def test_connected_tells_the_client_id_and_when_to_come_back(event_id: bytes | None) -> None:
    told = frame.Connected(client_id="c1", resumed=True, listening=("broadcast", "client:c1"))
    waiting, event = read(frame.connected(told, event_id, 1500))
    assert waiting.retry == 1500
    assert (event.id, event.event) == ("5-7" if event_id else "", "connected")
    listening = ["broadcast", "client:c1"]
    expected = {"status": "connected", "client_id": "c1", "resumed": True, "listening": listening}
    assert json.loads(event.data) == expected


def test_gap_closing_and_comment_say_what_they_are_given() -> None:
    gap = read(frame.gap("expired", None, "9-1"))[0]
    assert (gap.event, json.loads(gap.data)) == ("gap", {"reason": "expired", "from": None, "to": "9-1"})
    waiting, closing = read(frame.closing("drain", 2000, True))
    assert waiting.retry == 2000
    assert json.loads(closing.data) == {"reason": "drain", "reconnect": True, "retry": 2000}
    assert read(frame.comment("beat\n\nevent: x")) == [Received(comment=" beatevent: x")]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_unchunk_gives_back_what_chunk_took(texts: list[bytes]) -> None:
    assert frame.unchunk(b"".join(map(frame.chunk, texts))) == b"".join(texts)


def test_unchunk_ends_at_the_last_chunk() -> None:
    assert frame.unchunk(frame.chunk(b"a") + frame.LAST_CHUNK) == b"a"


@given(st.lists(st.tuples(st.none() | NAMES, st.just(b"") | NAMES, st.binary(max_size=40) | TEXTS), max_size=6))
def test_a_reader_of_ours_reads_the_same_events_out_of_chunks(events: list[Event]) -> None:
    last, found = "", []
    for event_id, event_type, data in frame.events(b"".join(frame.chunk(frame.event(*event)) for event in events)):
        last = last if event_id is None else event_id.decode()
        found.append((last, (event_type or b"message").decode(), data.decode()))
    assert found == [(one.id, one.event, one.data) for one in read(written(events))]
