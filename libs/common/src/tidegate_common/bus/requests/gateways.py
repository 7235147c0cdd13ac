"""Asks all gateways at once and adds up what they answer: one inbox, no task, and no longer than it must be.

Gateways announce themselves, so that the asker knows when all have answered and need not wait for a time to pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from secrets import token_hex
from typing import NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.roll import DOUBT_SECONDS, LiveGateways
from tidegate_common.contract.gateways import Announcement, GatewayAnswer, Question
from tidegate_common.errors import BrokerUnavailable

ANNOUNCE_SECONDS = (0.8, 1.2)
"""A gateway announces itself at random intervals within these."""

ASK_SECONDS = 1.0
"""How long an asker waits at most: a gateway that was killed is still expected for SILENCE_SECONDS."""


class Count(NamedTuple):
    """A sum over all gateways; `complete` says whether each that is known to be there has answered."""

    total: int
    complete: bool


_ANNOUNCEMENT = msgspec.json.Decoder(Announcement)
_NOBODY = ""
_ANSWER = msgspec.json.Decoder(GatewayAnswer)


class _Asked:
    """A question whose answers are being collected."""

    __slots__ = ("answered", "done", "missing", "total")

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.answered: set[str] = set()
        self.total = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, answer: GatewayAnswer) -> None:
        if answer.gateway in self.answered:
            return
        self.answered.add(answer.gateway)
        self.missing.discard(answer.gateway)
        self.total += answer.connections
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class AllGateways:
    """Every gateway on the bus, as one that can be asked."""

    def __init__(
        self, bus: Bus, clock: Callable[[], float] = time.monotonic, doubt_seconds: float = DOUBT_SECONDS
    ) -> None:
        self._bus = bus
        self._id = token_hex(8)
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self.live = LiveGateways(clock, doubt_seconds)
        bus.client.subscribe_direct(bus.subjects.gateways, self._announced)
        bus.client.subscribe_direct(bus.subjects.answers(self._id), self._answered)
        bus.on_disconnect.append(self._cut_off)
        bus.on_reconnect.append(self._come_back)

    async def presence(self, tail: str, wait_seconds: float, job_id: str = "") -> Count:
        """Connections that hear what is sent to `tail`, or what is sent there of the job. As `ask` has it."""
        return await self.ask(self._bus.subjects.presence, tail, wait_seconds, job_id=job_id)

    async def listeners(self, tail: str, wait_seconds: float, job_id: str) -> Count:
        """As `presence`, for what can't be taken back: complete only if no gateway is doubted either."""
        doubted = self.live.doubted
        found = await self.presence(tail, wait_seconds, job_id)
        # Before and after: one may have fallen silent meanwhile, or spoken again without having been asked.
        return Count(found.total, found.complete and not doubted and not self.live.doubted)

    async def kick(self, tail: str, wait_seconds: float) -> Count:
        """Ends the connections that hear what is sent to `tail`; gives how many. As `ask` has it."""
        return await self.ask(self._bus.subjects.kick, tail, wait_seconds)

    async def delivered(self, tail: str, receipt_id: str, wait_seconds: float) -> Count:
        """To how many connections the event with `receipt_id` was written. As `ask` has it."""
        return await self.ask(self._bus.subjects.receipts, tail, wait_seconds, receipt_id)

    async def ask(self, subject: str, tail: str, wait_seconds: float, receipt_id: str = "", job_id: str = "") -> Count:
        """The sum of what the gateways answer, as soon as all that are there have, or of what there is after the wait.

        Raises BrokerUnavailable while NATS is away.
        """
        if not self._bus.connected:
            raise BrokerUnavailable("NATS is away: the gateways can't be asked")
        missing = self.live.now()
        if self.live.known:
            if not missing:
                await self._bus.round_trip(wait_seconds)  # that nobody speaks may also be NATS that hangs
                return Count(0, True)
        else:
            missing.add(_NOBODY)  # no answer ends the wait
        self._number += 1
        number, asked = self._number, _Asked(missing)
        self._asked[number] = asked
        question = Question(asker=self._id, number=number, tail=tail, receipt_id=receipt_id, job_id=job_id)
        self._bus.client.publish_direct(subject, msgspec.json.encode(question))
        try:
            async with asyncio.timeout(wait_seconds):
                await asked.done
        except TimeoutError:
            pass
        finally:
            del self._asked[number]
        return Count(asked.total, asked.missing <= {_NOBODY})

    def _announced(self, _: bytes, __: bytes, payload: bytes) -> None:
        try:
            self.live.said(_ANNOUNCEMENT.decode(payload))
        except msgspec.MsgspecError:
            return  # somebody else's: it says nothing of a gateway

    def _answered(self, _: bytes, __: bytes, payload: bytes) -> None:
        try:
            answer = _ANSWER.decode(payload)
        except msgspec.MsgspecError:
            return
        asked = self._asked.get(answer.number)
        if asked is not None:
            asked.take(answer)

    def _cut_off(self) -> None:
        for asked in self._asked.values():
            if not asked.done.done():
                asked.done.set_exception(BrokerUnavailable("NATS went away while the gateways were being asked"))

    async def _come_back(self) -> None:
        self.live.start_anew()
