"""Both clients' parsers on any bytes, cut anywhere, held to the algorithm in WHATWG HTML 9.2.6 and to each other."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.eventstream import EventStreamParser, Received
from tidegate.parser import EventParser

Event = tuple[str, str, str]
"""Last id, type, data."""

FIELDS = [b"data", b"id", b"event", b"retry", b"", b"Data", b"other"]
VALUES = [
    b"x",
    b"",
    b" y",
    b"  ",
    b"12",
    b"-1",
    b"1e3",
    b"9" * 25,
    b"\0",
    b"a\0b",
    "é".encode(),
    "\u2028\u2029\x85".encode(),
    b"\xff\xfe",
]
PIECES = [
    b":",
    b": ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xf0\x9f",
    b"\xc0",
    b"\xed\xa0\x80",
    b"\0",
]
LINE_ENDS = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n"]
lines = st.builds(
    lambda *parts: b"".join(parts), *map(st.sampled_from, (FIELDS, [b":", b": ", b""], VALUES, LINE_ENDS))
)
streams = st.lists(st.one_of(lines, st.sampled_from(PIECES), st.binary(max_size=8)), max_size=30).map(b"".join)


@st.composite
def cut(draw: st.DrawFn) -> list[bytes]:
    """A stream in pieces."""
    stream = draw(streams)
    if draw(st.booleans()):
        return [stream[at : at + 1] for at in range(len(stream))]
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def expected(pieces: list[bytes]) -> tuple[list[Event], list[int]]:
    """What WHATWG's algorithm makes of them: the events, and the reconnection times."""
    parser = EventStreamParser()
    got = [received for piece in pieces for received in parser.feed(piece)]
    events = [(one.id, one.event, one.data) for one in got if one.retry is None and one.comment is None]
    return events, [one.retry for one in got if one.retry is not None]


@given(cut())
@example([b"\xef", b"\xbb", b"\xbfdata: x\r", b"\n\r\n"])
@example([b"data: x\r", b"\ndata: y\r", b"\n\r", b"\n"])
@example([b"data\n\ndata:\ndata\n\n", b"id\nevent: x\n\n"])
def test_the_python_parser_gives_what_whatwg_says(pieces: list[bytes]) -> None:
    parser, last, got = EventParser(), "", []
    for frame in (frame for piece in pieces for frame in parser.feed(piece)):
        last = last if frame.id is None else frame.id
        if frame.data is not None:
            got.append((last, frame.type, frame.data))
    events, retries = expected(pieces)
    assert got == events
    assert parser.retry == (min(retries[-1] / 1000, 86_400) if retries else None)


def test_the_javascript_parser_gives_what_whatwg_says() -> None:
    """3,000 streams of fixed seeds in one process of Node's."""

    def drawn(seed: int) -> list[bytes]:
        chance = random.Random(seed)
        whole = [FIELDS, [b":", b": ", b""], VALUES, LINE_ENDS]
        odd = [[*PIECES, *FIELDS, chance.randbytes(3)]]
        parts = [chance.choice(of) for _ in range(30) for of in (whole if chance.random() < 0.8 else odd)]
        stream = b"".join(parts)
        places = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(8)))
        return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]

    many = [drawn(seed) for seed in range(3_000)]
    assert sum(len(expected(pieces)[0]) for pieces in many) > 3_000
    given = json.dumps([[base64.b64encode(piece).decode() for piece in pieces] for pieces in many])
    script = Path(__file__).with_name("parse.mjs")
    done = subprocess.run(["node", str(script)], input=given, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    for pieces, made in zip(many, json.loads(done.stdout), strict=True):
        events, retries = expected(pieces)
        assert [tuple(event) for event in made["events"] if event[2] is not None] == events, pieces
        assert made["retries"] == [float(retry) for retry in retries], pieces


def test_the_algorithm_itself_tells_an_event_of_one_empty_line() -> None:
    assert EventStreamParser().feed(b"data\n\n") == [Received("", "message", "")]
