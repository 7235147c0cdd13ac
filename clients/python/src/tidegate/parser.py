"""The event stream format of WHATWG HTML 9.2, from bytes in pieces of any size."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from tidegate.backoff import bounded

LINE_END = re.compile(r"\r\n|\r|\n")
DIGITS = re.compile(r"[0-9]+")


class Frame(NamedTuple):
    """One dispatch. `id` is the event's own or None; `data` is None if only the id moves."""

    id: str | None
    type: str
    data: str | None


class EventParser:
    """Bytes in, frames out. `retry` is the last reconnection time that the stream gave, in seconds, or None."""

    def __init__(self) -> None:
        self.retry: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False
        self._after_return = False
        self._rest: list[str] = []
        self._id: str | None = None
        self._type = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that `piece` completes. One that the stream's end cuts off is never given."""
        text = self._decoder.decode(piece)
        if text and not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if not text:
            return []
        # A CR ends a line at once; the LF of a CRLF that was cut in two belongs to it.
        if self._after_return and text[0] == "\n":
            text = text[1:]
        self._after_return = text.endswith("\r")
        first, *more = LINE_END.split(text)
        self._rest.append(first)
        if not more:
            return []
        lines = ["".join(self._rest), *more[:-1]]
        self._rest = [more[-1]]
        return [frame for line in lines if (frame := self._line(line)) is not None]

    def _line(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        self._field(field, value.removeprefix(" "))
        return None

    def _field(self, field: str, value: str) -> None:
        if field == "event":
            self._type = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and DIGITS.fullmatch(value):
            self.retry = bounded(value, 0.001)

    def _dispatch(self) -> Frame | None:
        data = "\n".join(self._data) if self._data else None
        frame = Frame(self._id, self._type or "message", data)
        self._id, self._type, self._data = None, "", []
        return None if frame.id is None and data is None else frame
