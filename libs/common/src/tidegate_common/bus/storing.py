"""Puts messages into streams: many at once, in their order, each confirmed by its stream or refused with an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import stamina

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.replies import Replies
from tidegate_common.errors import BrokerUnavailable, QueueFull, Superseded, TidegateError

ATTEMPT_SECONDS = 2.0
_STREAM_FULL = {10077, 10122}  # maximum messages exceeded; its reservation-time sibling


_SUPERSEDED = 10071
"""Wrong last sequence: on the subject that the message names, another one has been stored."""


class Message(NamedTuple):
    """Its header block holds a message id: so it may be sent again, and is stored once."""

    subject: str
    block: bytes
    payload: bytes


class _ApiError(msgspec.Struct):
    err_code: int = 0


class Ack(msgspec.Struct):
    """A stream's answer: the message is its `seq`th, `duplicate` where it had been that already."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _ApiError | None = None


class Stored(NamedTuple):
    """What confirms a message, and the event stream's epoch at that moment, where it was known."""

    ack: Ack
    epoch: str | None


_ACK = msgspec.json.Decoder(Ack)


class _TryAgain(Exception):
    """The server was away or between leaders."""


class Storing:
    """Stores on one connection."""

    def __init__(self, bus: Bus, deadline_seconds: float) -> None:
        self._deadline = deadline_seconds
        self._events = bus.subjects.events_stream
        self._last = 0
        self._replies = Replies(bus, self._hear, min(ATTEMPT_SECONDS, deadline_seconds))
        self.epoch: str | None = None
        """The event stream's, for whoever asks for it to note here; None again after all that makes it doubtful."""
        bus.on_reconnect.append(self._forget_epoch)

    async def store(self, messages: Sequence[Message]) -> list[Stored | TidegateError]:
        """Sends all of them, and those that were not confirmed again, in their order, until the deadline.

        Where the stream's leader changes under way, the old one may lose messages while the new one stores those after
        them: what is sent again comes behind these (seen with 5,000 at once, never with 256).

        An error is BrokerUnavailable, QueueFull (a stream that discards new messages is full), or Superseded (the
        message names a last sequence, and that is another one by now).
        """
        until = asyncio.get_running_loop().time() + self._deadline
        results = await self._round(messages)
        if all(results):  # nearly always: without the loop's cost
            return [result for result in results if result]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._go_on(messages, results)
        refused = late()
        return [result or refused for result in results]

    async def _round(self, messages: Sequence[Message]) -> list[Stored | TidegateError | None]:
        """One try: None for each that may be sent again."""
        # All are on the wire before the first answer is waited for: in their order, and without a task for each.
        asked = [self._replies.ask(*message) for message in messages]
        return [_settled(await answer) for answer in asked]

    async def _go_on(self, messages: Sequence[Message], results: list[Stored | TidegateError | None]) -> None:
        """Tries again what has no result, until all have one."""
        async for attempt in stamina.retry_context(
            on=_TryAgain, attempts=None, timeout=None, wait_initial=0.05, wait_max=0.5, wait_jitter=0.1
        ):
            with attempt:
                asked = {
                    place: self._replies.ask(*messages[place]) for place, found in enumerate(results) if found is None
                }
                try:
                    await asyncio.wait(asked.values())
                finally:  # at the deadline too: what is confirmed by then is
                    for place, answer in asked.items():
                        results[place] = _settled(answer.result()) if answer.done() else None
                if not all(results):
                    raise _TryAgain("NATS is away, or has no leader for the stream")

    def _hear(self, answer: bytes) -> Stored | None:
        """Reads an answer at the moment when it comes: the next one may be of a stream that was made anew."""
        try:
            ack = _ACK.decode(answer)
        except msgspec.DecodeError:
            self.epoch = None  # nobody's: no leader, or no stream, and the next one may be another
            return None
        if ack.stream == self._events and not ack.duplicate and ack.error is None:
            if ack.seq <= self._last:
                self.epoch = None  # the stream counts from the start again: it was made anew
            self._last = ack.seq
        return Stored(ack, self.epoch)

    async def _forget_epoch(self) -> None:
        # The server that came back may have lost the stream, which was then made anew: ask before the next id.
        self.epoch = None


def _settled(heard: Stored | None) -> Stored | TidegateError | None:
    """None where the message may be sent again."""
    if heard is None or heard.ack.error is None:
        return heard
    if heard.ack.error.err_code == _SUPERSEDED:
        return Superseded("another attempt has begun since")
    return QueueFull("the queue is full", retry_after=5) if heard.ack.error.err_code in _STREAM_FULL else None


def late() -> BrokerUnavailable:
    """Of a message that was sent, perhaps, and not confirmed within the deadline."""
    return BrokerUnavailable("NATS did not confirm in time: it may be stored all the same")
