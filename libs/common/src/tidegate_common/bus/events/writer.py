"""Puts messages into streams: many at once, in their order, each confirmed by its stream or refused with an error."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events import refusals
from tidegate_common.bus.events.refusals import Refusals
from tidegate_common.bus.requests.jetstream import LEADERLESS, WRONG_LAST_SEQUENCE, Refusal
from tidegate_common.bus.streams.advisories import on_deletion, on_update
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.patience import Wait
from tidegate_common.errors import (
    BrokerUnavailable,
    CallerGone,
    NotStored,
    QueueFull,
    Superseded,
    TidegateError,
    TooLarge,
    TooManyWaiting,
)


class Message(NamedTuple):
    """Its header block holds a message id: so it may be sent again, and is stored once."""

    subject: str
    payload: bytes
    block: bytes


class Ack(msgspec.Struct):
    """A stream's answer: the message is its `seq`th, `duplicate` if it had been that already."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: Refusal | None = None


class PubAck(NamedTuple):
    """What confirms a message, and the event stream's epoch at that moment, if it was known."""

    ack: Ack
    epoch: str | None


Result = PubAck | TidegateError
_ACK = msgspec.json.Decoder(Ack)
_NOBODY = PubAck(Ack(), None)
"""No stream has taken the message: it has no leader, or is not there."""


class StreamWriter:
    """Stores on one connection."""

    def __init__(self, bus: Bus, leaders: Leaders, refusals: Refusals) -> None:
        self._bus = bus
        self._leaders = leaders
        self._refusals = refusals
        self._events = bus.subjects.events_stream
        self._inbound = bus.subjects.inbound("")
        self._last = 0
        patience = leaders.patience
        self._inbox = bus.new_inbox(self._hear, min(patience.attempt_seconds, patience.deadline_seconds))
        self.epoch: str | None = None
        """The event stream's, for whoever asks for it to note here; None again after all that makes it doubtful."""
        self.doubts = 0
        """How often it has been doubtful: an answer to what was asked before the last time is not to be noted."""
        # The server that comes back may have lost the stream, and made another. Until then it confirms nothing.
        bus.on_disconnect.append(self._doubt)
        # Said before the stream that follows can confirm anything: it may be another, or the same restored.
        on_deletion(bus, self._doubt)
        on_update(bus, self._doubt)

    async def store(self, messages: Sequence[Message]) -> list[Result]:
        """Sends all of them, and those that were not confirmed again, in their order, until the deadline.

        If the stream has no leader, it is waited for. Then the first of those that are left is sent by itself, and
        the others when it is confirmed: sent together, some could come too early for the new leader, and those after
        them in time. If a leader goes while messages are on their way, it may lose some whose followers the next
        one stores: what is sent again comes behind these (seen with 5,000 at once, never with 256).

        An error is BrokerUnavailable, QueueFull (a stream that discards new messages is full), Superseded (the
        message names a last sequence, and that is another one by now), or TooLarge (NATS takes less by now).
        """
        if not messages:
            return []
        began = asyncio.get_running_loop().time()
        stream = self._stream_of(messages[0])
        results: list[Result | None] = [None] * len(messages)
        if self._leaders.since(stream) is None:
            results = await self._round(messages, stream)
            if all(results):  # nearly always: without the loop's cost
                return self._noted(stream, [result for result in results if result])
        refused: BrokerUnavailable = late()
        try:
            size = sum(len(messages[index].payload) for index in _left(results))
            with self._leaders.wait(stream, began, size) as wait:
                await self._go_on(messages, results, stream, wait)
        except (TooManyWaiting, CallerGone) as error:
            refused = error
        return self._counted(stream, [result or refused for result in results])

    async def _round(self, messages: Sequence[Message], stream: str) -> list[Result | None]:
        """One try: None for each that may be sent again."""
        # All are on the wire before the first answer is waited for: in their order, and without a task for each.
        asked = [self._inbox.ask(*message) for message in messages]
        results: list[Result | None] = []
        for answer in asked:
            try:
                results.append(self._settled(await answer, stream))
            except TooLarge as error:
                results.append(error)
        return results

    async def _go_on(self, messages: Sequence[Message], results: list[Result | None], stream: str, wait: Wait) -> None:
        """Tries again what has no result, until all have one or the wait is over."""
        while (left := _left(results)) and wait.left() > 0:
            await wait.pause()
            if self._leaders.since(stream) is not None:
                continue
            for part in (left[:1], left[1:]):
                await self._try(messages, results, part, stream, wait)
                if results[left[0]] is None:
                    break

    async def _try(
        self, messages: Sequence[Message], results: list[Result | None], indexes: list[int], stream: str, wait: Wait
    ) -> None:
        asked = {index: self._inbox.ask(*messages[index]) for index in indexes}
        if asked:
            await asyncio.wait(asked.values(), timeout=max(0.0, wait.left()))
        for index, answer in asked.items():  # at the deadline too: what is confirmed by then is
            if not answer.done():
                answer.cancel()
            elif isinstance(error := answer.exception(), TooLarge):
                results[index] = error
            else:
                results[index] = self._settled(answer.result(), stream)

    def _hear(self, answer: bytes) -> PubAck:
        """Reads an answer at the moment when it comes: the next one may be of a stream that was made anew."""
        try:
            ack = _ACK.decode(answer)
        except msgspec.DecodeError:
            self._doubt()  # nobody's: no leader, or no stream, and the next one may be another
            return _NOBODY
        if ack.stream == self._events and not ack.duplicate and ack.error is None:
            if ack.seq <= self._last:
                self._doubt()  # the stream counts from the start again: it was made anew
            self._last = ack.seq
        return PubAck(ack, self.epoch)

    def _settled(self, heard: PubAck | None, stream: str) -> Result | None:
        """None if the message may be sent again."""
        if heard is None:
            self._leaders.silent(stream)
            return None
        if heard is _NOBODY:
            self._leaders.lost(stream)
            return None
        error = heard.ack.error
        if error is None:
            self._leaders.stored(stream)
            return heard
        if error.err_code in LEADERLESS:
            self._leaders.lost(stream)
            return None
        if error.err_code in WRONG_LAST_SEQUENCE:  # on the subject that the message names
            return Superseded("another attempt has begun since")
        return self._refusal(stream, error)

    def _refusal(self, stream: str, error: Refusal) -> TidegateError:
        reason = refusals.reason_of(error.err_code, error.description)
        found: TidegateError = NotStored(f"NATS does not store: {error.description}", retry_after=5)
        if reason == refusals.STREAM_FULL and stream == self._bus.subjects.jobs_stream:
            found = QueueFull("the queue is full", retry_after=5)
        self._refusals.refused(stream, reason, error.description)
        return found

    def _noted(self, stream: str, results: list[Result]) -> list[Result]:
        if isinstance(results[-1], PubAck):
            self._refusals.stored(stream)
        return results

    def _counted(self, stream: str, results: list[Result]) -> list[Result]:
        """`results`, with what was not confirmed counted as refused: what NATS refused itself has been."""
        kinds = Counter(map(type, results))
        if kinds[BrokerUnavailable]:
            self._refusals.refused(
                stream, unconfirmed(self._bus, self._leaders, stream), number=kinds[BrokerUnavailable]
            )
        if kinds[TooManyWaiting]:
            self._refusals.refused(stream, refusals.TOO_MANY_WAITING, number=kinds[TooManyWaiting])
        return self._noted(stream, results)

    def _stream_of(self, message: Message) -> str:
        events = message.subject.startswith(self._inbound)
        return self._events if events else self._bus.subjects.jobs_stream

    def _doubt(self) -> None:
        self.epoch = None
        self.doubts += 1


def unconfirmed(bus: Bus, leaders: Leaders, stream: str) -> str:
    """The reason of a publish that nobody has answered, as far as it shows."""
    if not bus.connected:
        return refusals.AWAY
    return refusals.NO_LEADER if leaders.gone(stream) else refusals.UNCONFIRMED


def _left(results: Sequence[Result | None]) -> list[int]:
    """Indexes of the messages that have no result."""
    return [index for index, found in enumerate(results) if found is None]


def late() -> BrokerUnavailable:
    """Of a message that was sent, perhaps, and not confirmed within the deadline."""
    return BrokerUnavailable("NATS did not confirm in time: it may be stored all the same")
