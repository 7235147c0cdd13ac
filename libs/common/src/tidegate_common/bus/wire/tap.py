"""What NATS sends, split where it is read: a message goes to its subscription by a plain call, all else to the client.

nats-py reads through a stream, a task and a parser of regular expressions: a task's turn for each piece that comes,
10 µs where messages come one by one, and 4 µs for each message. Worse, a byte that its expressions take for white space
ends its reader, and anybody may publish one. So lines are split here as the server writes them (NATS client protocol):
fields with one space between them, and in a subject any byte but space, tab and line feed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

log = logging.getLogger(__name__)

MESSAGES = (b"HMSG", b"MSG")

MAX_LINE_BYTES = 1 << 20
"""Of a line that is no message; an INFO names every server of a cluster."""

Deliver = Callable[[bytes, bytes, bytes], None]
"""Takes a message's subject, its raw header block (empty if there is none) and its payload. Should not raise."""


class Direct:
    """A subscription whose messages go to a function, from inside the read."""

    __slots__ = ("deliver",)

    deliver: Deliver


class Reader(Protocol):
    """Whose connection it is. No call may raise."""

    def take_message(self, sid: int, subject: bytes, reply: bytes, header: bytes, payload: bytes) -> None:
        """A message of a subscription that is not Direct, or not there any more."""

    def take_line(self, line: bytes) -> None:
        """A line that is no message, without its end."""

    def take_failure(self, subject: bytes, error: Exception) -> None:
        """A message that its subscription could not handle."""

    def take_nonsense(self, line: bytes) -> None:
        """What was read is not the protocol: the place in it is lost, and nothing more is handed over."""


class Tap:
    """Takes what is read on one connection, from a line's start on. Nothing that comes makes `feed` raise."""

    def __init__(self, subscriptions: Mapping[int, Any], reader: Reader, stats: dict[str, int]) -> None:
        self._subscriptions = subscriptions
        self._reader = reader
        self._stats = stats
        self._pieces: list[bytes] = []
        self._missing = 0
        """Bytes that the message in `_pieces` lacks, if its size is known: it is looked at once it is whole."""
        self._reading = False
        self._after: list[Callable[[], object]] = []
        self.closed = False
        """Hands nothing over any more: the connection was given up."""

    def at_end_of_read(self, call: Callable[[], object]) -> bool:
        """Whether a piece is being taken; then `call` is called once at its end. An error of it is logged."""
        if self._reading:
            self._after.append(call)
        return self._reading

    def feed(self, data: bytes) -> None:
        """The next piece, of any size."""
        if self._missing > len(data):
            self._pieces.append(data)
            self._missing -= len(data)
            return
        self._reading = True
        try:
            self._split(data)
        finally:
            self._reading = False
            after, self._after = self._after, []
            for call in after:
                try:
                    call()
                except Exception:  # let out, it would cost the connection
                    log.exception("what follows on a read could not be done")

    def _split(self, data: bytes) -> None:
        if self._pieces:
            self._pieces.append(data)
            data = b"".join(self._pieces)
            self._pieces.clear()
        self._missing = position = count = 0
        size, subscriptions = len(data), self._subscriptions
        while position < size and not self.closed:
            end = data.find(b"\r\n", position)
            if end < 0:
                if size - position > MAX_LINE_BYTES:
                    self._give_up(data[position : position + 64])
                break
            stop = end + 2
            fields = data[position:end].split(b" ")
            if fields[0] in MESSAGES:
                # MSG <subject> <sid> [reply] <size>, or HMSG <subject> <sid> [reply] <size of headers> <size in all>.
                start = headers = stop
                try:
                    stop += int(fields[-1]) + 2
                    subscription = subscriptions.get(int(fields[2]))
                    if len(fields[0]) == 4:
                        headers += int(fields[-2 if len(fields) > 4 else -9])  # a field too few raises IndexError
                except (ValueError, IndexError):
                    stop = 0
                if stop < headers:
                    self._give_up(data[position:end])
                    break
                if stop > size:
                    self._missing = stop - size
                    break
                if isinstance(subscription, Direct):
                    count += 1
                    try:
                        subscription.deliver(fields[1], data[start:headers], data[headers : stop - 2])
                    except Exception as error:
                        self._reader.take_failure(fields[1], error)
                else:
                    # A message that is to be answered has a field more; one with a header another.
                    reply = fields[3] if len(fields) - len(fields[0]) == 2 else b""
                    sid = int(fields[2])
                    self._reader.take_message(sid, fields[1], reply, data[start:headers], data[headers : stop - 2])
            else:
                self._reader.take_line(data[position:end])
            position = stop
        if position < size and not self.closed:
            self._pieces.append(data[position:])
        self._stats["in_msgs"] += count

    def _give_up(self, line: bytes) -> None:
        self.closed = True
        self._reader.take_nonsense(line)
