"""This gateway's part of what all gateways are asked: it says that it is there, counts, and ends connections."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from secrets import token_hex

import msgspec

from gateway.feed.receipts import Receipts
from gateway.hub.endings import Ending
from gateway.hub.hub import Hub
from gateway.hub.tails import filtered
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.gateways import ANNOUNCE_SECONDS
from tidegate_common.contract.gateways import Announcement, GatewayAnswer, Question
from tidegate_common.runtime.tasks import end, spawn

log = logging.getLogger(__name__)

_QUESTION = msgspec.json.Decoder(Question)
_ASKER = frozenset("0123456789abcdef")

Reply = Callable[[int], None]


class Control:
    """Answers from within the NATS parser's call. `start` and `aclose` go with the process."""

    def __init__(self, bus: Bus, hub: Hub, receipts: Receipts) -> None:
        self._bus = bus
        self._hub = hub
        self._receipts = receipts
        self._subscriptions: list[int] = []
        self._announcing: asyncio.Task[None] | None = None
        self.gateway = token_hex(8)
        """This process's id, for the time of its life."""

    def start(self) -> None:
        """Questions are answered from now on, and the gateway announces itself."""
        subjects, client = self._bus.subjects, self._bus.client
        for subject, answer in (
            (subjects.presence, self._count),
            (subjects.receipts, self._delivered),
            (subjects.kick, self._kick),
        ):
            self._subscriptions.append(client.subscribe_direct(subject, partial(self._asked, answer)))
        log.info("the other services know this gateway as %s", self.gateway)
        self._announce()
        self._announcing = spawn(self._announce_for_ever(), "saying that this gateway is here")

    async def aclose(self) -> None:
        """Says that the gateway is leaving, so that nobody waits for its answers."""
        for subscription in self._subscriptions:
            self._bus.client.unsubscribe_direct(subscription)
        if self._announcing is not None:
            await end([self._announcing])
        self._announce(leaving=True)

    async def _announce_for_ever(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(*ANNOUNCE_SECONDS))
            self._announce()

    def _announce(self, leaving: bool = False) -> None:
        said = msgspec.json.encode(Announcement(self.gateway, leaving))
        self._bus.client.publish_direct(self._bus.subjects.gateways, said)

    def _asked(self, answer: Callable[[Question, Reply], None], _: bytes, __: bytes, payload: bytes) -> None:
        try:
            question = _QUESTION.decode(payload)
        except msgspec.MsgspecError:
            return
        if question.asker and _ASKER.issuperset(question.asker):
            answer(question, partial(self._reply, question))

    def _reply(self, question: Question, connections: int) -> None:
        answer = GatewayAnswer(gateway=self.gateway, number=question.number, connections=connections)
        self._bus.client.publish_direct(self._bus.subjects.answers(question.asker), msgspec.json.encode(answer))

    def _count(self, question: Question, reply: Reply) -> None:
        found = len(self._hub.listening(question.tail))
        if question.job_id:
            found += len(self._hub.listening(filtered(question.tail, question.job_id)))
        reply(found)

    def _delivered(self, question: Question, reply: Reply) -> None:
        self._receipts.ask(question.receipt_id.encode(), question.tail, reply)

    def _kick(self, question: Question, reply: Reply) -> None:
        found = self._hub.listening(question.tail)
        for session in found:
            self._hub.end(session, Ending.KICKED)
        reply(len(found))
