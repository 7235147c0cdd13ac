"""What NATS sends, split where it is read: messages for plain functions are handed over at once, all else to nats-py.

nats-py reads through a stream, a task and a parser of regular expressions: a task's turn for each piece that comes,
10 µs where messages come one by one, and 4 µs for each message. What a gateway lives on is in messages of one form,
`HMSG <subject> <sid> [reply] <header bytes> <all bytes>` (NATS client protocol), which need neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

MESSAGES = (b"HMSG", b"MSG")

Deliver = Callable[[bytes, bytes, bytes], None]
"""Takes a message's subject, its raw header block (empty where there is none) and its payload. Must not raise."""


class Direct:
    """A subscription whose messages go to a function, from inside the read."""

    __slots__ = ("deliver",)

    deliver: Deliver


class Tap:
    """Takes what is read on one connection, from a message's start on."""

    def __init__(
        self, subscriptions: Mapping[int, Any], forward: Callable[[bytes], object], stats: dict[str, int]
    ) -> None:
        """`forward` gets all but the messages of Direct subscriptions: whole protocol messages, in their order."""
        self._subscriptions = subscriptions
        self._forward = forward
        self._stats = stats
        self._rest = b""
        self._reading = False
        self._after: list[Callable[[], object]] = []

    def at_end_of_read(self, call: Callable[[], object]) -> bool:
        """Whether a piece is being taken; then `call` is called once at its end. An error of it is logged."""
        if self._reading:
            self._after.append(call)
        return self._reading

    def feed(self, data: bytes) -> None:
        """The next piece, of any size."""
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
        if self._rest:
            data = self._rest + data
        position = others = count = 0  # `others`: from here on nothing has been forwarded
        size = len(data)
        while position < size:
            end = data.find(b"\r\n", position)
            if end < 0:
                break
            stop = end + 2
            fields = data[position:end].split()
            if fields and fields[0] in MESSAGES:
                start, stop = stop, stop + int(fields[-1]) + 2
                if stop > size:
                    break
                subscription = self._subscriptions.get(int(fields[2]))
                if isinstance(subscription, Direct):
                    if others < position:
                        self._forward(data[others:position])
                    headers = start + int(fields[-2]) if fields[0] == b"HMSG" else start
                    count += 1
                    try:
                        subscription.deliver(fields[1], data[start:headers], data[headers : stop - 2])
                    except Exception:
                        log.exception("a message could not be handled", extra={"subject": fields[1].decode()})
                    others = stop
            position = stop
        self._rest = data[position:]
        self._stats["in_msgs"] += count
        if others < position:
            self._forward(data[others:position])
