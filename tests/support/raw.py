"""Messages with header blocks of any bytes, which no client library would write."""

from __future__ import annotations

import msgspec

from tidegate_common.bus.connection import Bus


class _Ack(msgspec.Struct):
    seq: int


class RawPublisher:
    """Writes header blocks as they are given."""

    def __init__(self, bus: Bus) -> None:
        self._client = bus.client
        self._inbox = bus.inbox

    async def store(self, subject: str, block: bytes, payload: bytes) -> int:
        """The sequence under which the stream has stored the message."""
        answer = await self._inbox.ask(subject, payload, block)
        assert answer, "the stream answers"
        return msgspec.json.decode(answer, type=_Ack).seq

    def send(self, subject: str, block: bytes, payload: bytes) -> None:
        """A message that is not answered."""
        self._client.request_direct(subject, b"nobody", block, payload)
