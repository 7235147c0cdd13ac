"""Calls of JetStream's API. Answers are plain JSON, so that nothing is lost which a server knows and we do not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.errors import BrokerUnavailable, NotSent

CALL_SECONDS = 5.0
"""How long an answer may take at most."""

CLUSTER_NOT_AVAILABLE = 10008
STREAM_NOT_FOUND = 10059
STREAM_OFFLINE = 10118
"""JetStream's error codes."""

LEADERLESS = frozenset({CLUSTER_NOT_AVAILABLE, STREAM_OFFLINE})


class ApiError(BrokerUnavailable):
    """JetStream's own refusal: its `code`, and its words."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        self.words = words
        super().__init__(f"JetStream refuses: {words} (error {code})")


class JetStreamApi:
    """Asks on one connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.changing = asyncio.Lock()
        """Held by who reads a stream's configuration and writes it back: an update takes the whole, and compares none.
        """

    async def stores(self, subject: str, block: bytes, seconds: float) -> bool:
        """Whether a stream confirms an empty message to `subject`, with the header `block`, within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                answer = await self._bus.inbox.ask(subject, b"", block)
        except TimeoutError:
            return False
        return bool(answer) and "error" not in msgspec.json.decode(answer or b"{}")

    async def call(self, name: str, body: Any = None, seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """What JetStream answers to `name` (STREAM.INFO.TG_EVENTS) within `seconds`.

        Raises NotSent (NATS is away, nobody answers, or there is no leader), ApiError, BrokerUnavailable (no answer).
        """
        payload = b"" if body is None else msgspec.json.encode(body)
        answer: bytes | None = None
        if not self._bus.connected:
            raise NotSent("NATS is away")
        try:
            async with asyncio.timeout(seconds):
                answer = await self._bus.inbox.ask(f"$JS.API.{name}", payload)
        except TimeoutError:
            pass  # in a cluster nobody speaks for a stream that has no leader
        if answer is None:
            raise BrokerUnavailable(f"JetStream does not answer (to {name})")
        if not answer:
            raise NotSent("JetStream has to be on (nats-server -js): nobody answers for it")
        found: dict[str, Any] = msgspec.json.decode(answer)
        error = found.get("error")
        if error is None:
            return found
        code, words = int(error.get("err_code", 0)), str(error.get("description", ""))
        if code in LEADERLESS:
            raise NotSent(f"JetStream has no leader ({words})")
        raise ApiError(code, words)
