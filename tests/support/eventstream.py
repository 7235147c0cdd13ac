"""A reader of event streams, written from the algorithm in WHATWG HTML 9.2.6 and sharing nothing with our writer."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """One thing that a stream said: an event, or else a `retry` or a `comment` alone."""

    id: str = ""
    event: str = ""
    data: str = ""
    retry: int | None = None
    comment: str | None = None


class EventStreamParser:
    """Takes the bytes of a stream in pieces of any size."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._last_event_id = ""
        self._type = ""
        self._data = ""

    def feed(self, piece: bytes) -> list[Received]:
        """What `piece` completes, in order."""
        text = self._text.decode(piece)
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        found: list[Received] = []
        for character in text:
            if character == "\n" and self._after_cr:
                self._after_cr = False
            elif character in "\r\n":
                self._after_cr = character == "\r"
                line = "".join(self._line)
                self._line.clear()
                found += self._process(line)
            else:
                self._after_cr = False
                self._line.append(character)
        return found

    def _process(self, line: str) -> list[Received]:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return [Received(comment=line[1:])]
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._type = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id" and "\0" not in value:
            self._last_event_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            return [Received(retry=int(value))]
        return []

    def _dispatch(self) -> list[Received]:
        data, type_ = self._data, self._type
        self._data = self._type = ""
        if not data:
            return []
        return [Received(self._last_event_id, type_ or "message", data.removesuffix("\n"))]


async def read_events(pieces: AsyncIterable[bytes]) -> AsyncIterator[Received]:
    """What a stream says, from its body's bytes (for example httpx's `response.aiter_bytes()`)."""
    parser = EventStreamParser()
    async for piece in pieces:
        for received in parser.feed(piece):
            yield received
