"""The event stream format (WHATWG HTML 9.2) and HTTP/1.1 chunks, on bytes, for Tidegate's own streams.

OpenAI's front writes chunks of another shape, each one line of data (openai/translator.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

LAST_CHUNK = b"0\r\n\r\n"
"""End of a chunked body (RFC 9112 7.1)."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FORBIDDEN = re.compile(rb"[\r\n\0]+")
_ESCAPES = {character.encode(): b"\\u%04x" % ord(character) for character in "\u2028\u2029\x85"}
_BREAKS = re.compile(b"|".join(_ESCAPES))
_FIELDS = re.compile(rb"(?:id: (.*)\n)?(?:event: (.*)\n)?data: ")
_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)


def event(event_id: bytes | None, event_type: bytes, payload: bytes) -> bytes:
    """One event: `id:` (left out for None), `event:` (left out for `message`), a `data:` for each line of data.

    `event_id` is ours. `event_type` and `payload` may be anybody's bytes: they are made to fit. An empty payload is
    one empty `data:` line: it puts a line end into the data buffer, so that the event is dispatched, with no data.
    """
    if not payload.isascii():
        payload = payload.decode("utf-8", "replace").encode()
        if payload.find(b"\xe2\x80") >= 0 or payload.find(b"\xc2\x85") >= 0:
            payload = _unbroken(payload)
    # `in` takes twice as long as `find`: for bytes it tries their number first, and makes an exception of that.
    if payload.find(b"\n") >= 0 or payload.find(b"\r") >= 0:
        payload = b"\ndata: ".join(_LINE_END.split(payload))
    if event_id is None:
        return b"%bdata: %b\n\n" % (_type_line(event_type), payload)
    return b"id: %b\n%bdata: %b\n\n" % (event_id, _type_line(event_type), payload)


def escaped(text: bytes) -> bytes:
    """JSON with U+2028, U+2029 and U+0085 written as escapes, which mean the same.

    They end no line of an event stream, but they do for whoever splits text as Python's `splitlines` does: such a
    client gets the event in pieces. In JSON they can only stand within strings.
    """
    return _BREAKS.sub(lambda found: _ESCAPES[found[0]], text)


def _unbroken(payload: bytes) -> bytes:
    """`payload`, `escaped` if it is JSON. Text has no other way to say these characters, and stays as it is."""
    if _BREAKS.search(payload) is None or payload.lstrip()[:1] not in (b"{", b"[", b'"'):
        return payload
    try:
        _ANY_JSON.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return payload
    return escaped(payload)


@lru_cache(maxsize=256)  # an application has few types of events
def _type_line(event_type: bytes) -> bytes:
    return b"event: %b\n" % field_value(event_type) if event_type and event_type != b"message" else b""


def field_value(raw: bytes) -> bytes:
    """`raw` without what would end its line or spoil it (CR, LF, NUL, invalid UTF-8)."""
    if raw.isalnum():
        return raw
    return _FORBIDDEN.sub(b"", raw).decode("utf-8", "replace").encode()


def comment(text: str) -> bytes:
    """A line that clients ignore. No blank line follows: some parsers take one for an event of its own."""
    return b": %s\n" % field_value(text.encode())


def retry(milliseconds: int) -> bytes:
    """How long a client waits before it comes back."""
    return b"retry: %d\n" % milliseconds


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """Data of a stream's first event."""

    status: str = "connected"
    client_id: str
    resumed: bool
    listening: tuple[str, ...] | int
    """What is listened to: the names, or how many they are."""
    job_id: str | msgspec.UnsetType = msgspec.UNSET
    """Of a job's own stream."""


def connected(told: Connected, event_id: bytes | None, retry_ms: int) -> bytes:
    """The first event of a stream."""
    return retry(retry_ms) + event(event_id, b"connected", msgspec.json.encode(told))


def gap(reason: str, start: str | None, end: str) -> bytes:
    """What lay between two ids can't be had any more."""
    return event(None, b"gap", msgspec.json.encode({"reason": reason, "from": start, "to": end}))


def expiring(seconds: int) -> bytes:
    """A stream's token is good for so long yet."""
    return event(None, b"expiring", msgspec.json.encode({"seconds": seconds}))


def closing(reason: str, retry_ms: int, reconnect: bool) -> bytes:
    """The last event of a stream that the gateway ends."""
    data = msgspec.json.encode({"reason": reason, "reconnect": reconnect, "retry": retry_ms})
    return retry(retry_ms) + event(None, b"closing", data)


def chunk(text: bytes) -> bytes:
    """`text` as one HTTP/1.1 chunk."""
    return b"%x\r\n%s\r\n" % (len(text), text)


def unchunk(chunks: bytes) -> bytes:
    """The text of whole `chunks`, for those who can't read them."""
    return b"".join(_texts(chunks))


def _texts(chunks: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(chunks):
        start = chunks.index(b"\r\n", position) + 2
        end = start + int(chunks[position : start - 2], 16)
        yield chunks[start:end]
        position = end + 2


class ParsedEvent(NamedTuple):
    """An event as a client reads it. `event_id` is None if there is none, `event_type` for `message`."""

    event_id: bytes | None
    event_type: bytes | None
    data: bytes


def events(chunks: bytes) -> Iterator[ParsedEvent]:
    """What `event` has made and `chunk` has put into one chunk each: for readers within the gateway."""
    for text in _texts(chunks):
        fields = _FIELDS.match(text)
        assert fields is not None, "it is ours"
        data = text[fields.end() : -2].replace(b"\ndata: ", b"\n")
        yield ParsedEvent(fields[1], fields[2], data)
