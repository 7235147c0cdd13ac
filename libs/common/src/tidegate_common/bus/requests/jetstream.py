"""Calls of JetStream's API. Answers are plain JSON, so that nothing is lost which a server knows and we do not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tidegate_common.bus.wire import headers
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import BrokerUnavailable, NotSent

if TYPE_CHECKING:
    from tidegate_common.bus.connection import Bus

CALL_SECONDS = 5.0
"""How long an answer may take at most."""

CLUSTER_NOT_AVAILABLE = 10008
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
STREAM_OFFLINE = 10118
"""JetStream's error codes."""

LEADERLESS = frozenset({CLUSTER_NOT_AVAILABLE, STREAM_OFFLINE})


class JetStreamError(BrokerUnavailable):
    """JetStream's own refusal: its `code`, and its words."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        self.words = words
        super().__init__(f"JetStream refuses: {words} (error {code})")


class Found(NamedTuple):
    """A message of a stream. `block` is the raw header block, empty for none."""

    sequence: int
    subject: str
    block: bytes
    payload: bytes


class _Message(msgspec.Struct):
    seq: int
    subject: str
    hdrs: bytes = b""
    data: bytes = b""


class Refusal(msgspec.Struct):
    """JetStream's error, as it stands in an answer."""

    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """Of any call."""

    error: Refusal | None = None


class _Got(msgspec.Struct):
    """Of one that gets a message."""

    message: _Message


class _Kept(msgspec.Struct):
    """Of a stream that has stored a message."""

    seq: int


_ANSWER = msgspec.json.Decoder(_Answer)
_GOT = msgspec.json.Decoder(_Got)
_KEPT = msgspec.json.Decoder(_Kept)
_NO_API = "JetStream has to be on (nats-server -js): nobody answers for it"
_NO_STREAM = "nobody stores it: the stream has no leader, or is not there"


class JetStreamApi:
    """Asks on one connection. All calls raise BrokerUnavailable, and these, which are some:

    NotSent if NATS is away, nobody answers, or there is no leader; JetStreamError.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.changing = asyncio.Lock()
        """Held by who reads a stream's configuration and writes it back: an update takes the whole, and compares none.
        """

    async def call(self, name: str, body: Any = None, seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """What JetStream answers to `name` (STREAM.INFO.TG_EVENTS) within `seconds`."""
        payload = b"" if body is None else msgspec.json.encode(body)
        found: dict[str, Any] = msgspec.json.decode(await self._ask(f"$JS.API.{name}", payload, seconds=seconds))
        return found

    async def message(self, stream: str, **ask: Any) -> Found | None:
        """The message of `stream` that `ask` is for, as its leader has it; None if there is none.

        `ask` is JetStream's: `seq`, or `last_by_subj`, or `next_by_subj` with `seq` or `start_time`. The client's own
        call makes a dict of the headers, and fails over bytes in them that are no text.
        """
        try:
            answer = await self._ask(f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(ask))
        except JetStreamError as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        try:
            kept = _GOT.decode(answer).message
        except UNREADABLE as error:
            raise BrokerUnavailable("NATS does not give a stored message") from error
        return Found(kept.seq, kept.subject, kept.hdrs, kept.data)

    async def store(
        self, subject: str, payload: bytes, fields: Mapping[str, str], seconds: float = CALL_SECONDS
    ) -> int:
        """Stores a message once, and gives its sequence. Raises TooLarge, too."""
        answer = await self._ask(subject, payload, headers.block(fields), seconds, _NO_STREAM)
        try:
            return _KEPT.decode(answer).seq
        except UNREADABLE as error:
            raise BrokerUnavailable("somebody else than a stream has taken the message") from error

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        block: bytes = headers.NO_FIELDS,
        seconds: float = CALL_SECONDS,
        nobody: str = _NO_API,
    ) -> bytes:
        """The answer, if it is no error."""
        if not self._bus.connected:
            raise NotSent("NATS is away")
        answer: bytes | None = None
        losses = self._bus.losses
        try:
            async with asyncio.timeout(seconds):
                answer = await self._bus.inbox.ask(subject, payload, block)
        except TimeoutError:
            pass  # in a cluster nobody speaks for a stream that has no leader
        if answer is None and losses != self._bus.losses:
            raise BrokerUnavailable("NATS is away")  # in the same words as above: the log tells one absence once
        if answer is None and subject in self._bus.client.unwritable:
            self._bus.client.unwritable.discard(subject)  # the right may be given later
            raise BrokerUnavailable(
                f"NATS does not allow this process to write to {subject}: its user lacks that right"
            )
        if answer is None:
            raise BrokerUnavailable(f"JetStream does not answer (to {subject.removeprefix('$JS.API.')})")
        if not answer:
            raise NotSent(nobody)
        try:
            error = _ANSWER.decode(answer).error
        except UNREADABLE as fault:
            raise BrokerUnavailable("what JetStream answers can't be read") from fault
        if error is None:
            return answer
        code, words = error.err_code, error.description
        if code in LEADERLESS:
            raise NotSent(f"JetStream has no leader ({words})")
        raise JetStreamError(code, words)
