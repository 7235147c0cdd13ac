"""Messages on our subjects that say they come from a stream, and do not come from ours."""

from __future__ import annotations

import logging

from tidegate_common.bus.wire import headers

log = logging.getLogger(__name__)

STREAMS = 16
"""So many streams are named in the log, each once."""


class OtherStreams:
    """Counts them, and names their streams. They are delivered as volatile events: without an id, never replayed."""

    def __init__(self) -> None:
        self._last = b""
        self._said: set[bytes] = set()
        self.count = 0
        """Messages so far: one that several subscriptions bring is one."""

    def take(self, subject: bytes, block: bytes) -> bytes:
        """A message came on `subject` with the header block `block`. Gives what tells it from others of its kind."""
        # The fields that its stream wrote, the sequence among them. Whoever sends it on may send it to many subjects.
        mark = b" ".join([subject, *block.rsplit(b"\r\n", 7)[1:]])
        if mark != self._last:
            self._last = mark
            self.count += 1
            stream = _stream(block)
            if stream not in self._said and len(self._said) < STREAMS:
                self._said.add(stream)
                log.warning(
                    "a message that another stream stored came on our subjects: delivered as a volatile event",
                    extra={"stream": stream.decode(errors="replace")},
                )
        return mark


def _stream(block: bytes) -> bytes:
    """Name of the stream that wrote last into the block; empty if none did."""
    start = block.rfind(headers.STREAM)
    return (headers.field(block[start:], headers.STREAM) or b"")[:255] if start >= 0 else b""
