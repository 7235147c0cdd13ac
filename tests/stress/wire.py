"""A lean reader of a chunked event stream: a thousand of them share one process with all else under test.

It reads what a gateway writes (LF line ends, one response); tests/support/eventstream.py is the whole algorithm.
"""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    id: str | None
    event: str
    data: str


class StreamReader:
    """Takes a connection's bytes in pieces of any size. `status` is 0 until the response head is complete."""

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self._raw = b""
        self._text = b""

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that `piece` completes, in order. Raises ValueError for what is no such stream."""
        self._raw += piece
        if not self.status:
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return []
            self.status, self._raw = int(head.split(b" ", 2)[1]), rest
        if self.status != 200:
            return []
        self._unchunk()
        *blocks, self._text = self._text.split(b"\n\n")
        return [frame for block in blocks if (frame := _frame(block)) is not None]

    def _unchunk(self) -> None:
        raw, position, texts = self._raw, 0, [self._text]
        while (end := raw.find(b"\r\n", position)) >= 0:
            size = int(raw[position:end], 16)
            if len(raw) < end + 2 + size + 2:
                break
            self.ended = self.ended or size == 0
            texts.append(raw[end + 2 : end + 2 + size])
            position = end + 2 + size + 2
        self._raw = raw[position:]
        self._text = b"".join(texts)


def _frame(block: bytes) -> Frame | None:
    """One event; None where the block holds none (comments alone)."""
    event_id, event, data = None, "message", []
    for line in block.decode().split("\n"):
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)
    return Frame(event_id, event, "\n".join(data)) if data else None
