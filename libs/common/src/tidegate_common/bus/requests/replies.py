"""Asks many questions on one connection: one inbox for all answers, a future for each, no task and no timer of its own.

nats-py's `request` makes an inbox token of random bytes, a timer, a dict of the headers and a task's turn for each
question. One timer is enough for all, since all wait equally long: whoever has asked first gives up first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from nats import errors as nats_errors

from tidegate_common.bus.connection import Bus
from tidegate_common.errors import TooLarge

T = TypeVar("T")


class Replies(Generic[T]):
    """Sends messages that are answered.

    `read` makes the answer of a payload, in the order in which the server wrote them; the payload is empty where
    nobody listens on the subject. It must not raise.
    """

    def __init__(self, bus: Bus, read: Callable[[bytes], T], wait_seconds: float) -> None:
        self._client = bus.client
        self._read = read
        self._wait = wait_seconds
        self._inbox = f"{bus.client.new_inbox()}.".encode()
        self._asked = 0
        self._waiting: dict[bytes, tuple[float, asyncio.Future[T | None]]] = {}
        """By the last token of the inbox, in the order of asking: when the waiting ends, and who waits."""
        self._timer: asyncio.TimerHandle | None = None
        bus.client.subscribe_direct(f"{self._inbox.decode()}*", self._take)
        bus.on_disconnect.append(self._cut_off)

    def ask(self, subject: str, block: bytes, payload: bytes) -> asyncio.Future[T | None]:
        """Sends a message with the header block `block`, at once and after what was asked before.

        The future's result is the answer, or None: NATS is away (then nothing was sent), it went away meanwhile, or
        none came in time. It raises TooLarge, and nothing was sent, where the message is more than NATS takes now.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T | None] = loop.create_future()
        if not self._client.is_connected:
            # Never into the client's buffer: it would be sent after the caller was told that it was refused.
            answer.set_result(None)
            return answer
        self._asked += 1
        token = b"%d" % self._asked
        until = loop.time() + self._wait
        try:
            self._client.request_direct(subject, self._inbox + token, block, payload)
        except nats_errors.MaxPayloadError:
            answer.set_exception(TooLarge("the message", max(0, self._client.max_payload - len(block))))
            return answer
        except nats_errors.BadSubjectError:
            answer.set_exception(TooLarge("the message's subject", self._client.limits.line))
            return answer
        self._waiting[token] = until, answer
        if self._timer is None:
            self._timer = loop.call_at(until, self._give_up)
        return answer

    def _take(self, subject: bytes, _: bytes, payload: bytes) -> None:
        found = self._read(payload)
        waiting = self._waiting.pop(subject[len(self._inbox) :], None)
        if waiting is not None and not waiting[1].done():  # a cancelled one is done
            waiting[1].set_result(found)

    def _give_up(self) -> None:
        """Ends the waiting of those whose time is over, and sleeps until the next one's is."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for token, (until, answer) in list(self._waiting.items()):
            if until > loop.time():
                self._timer = loop.call_at(until, self._give_up)
                return
            del self._waiting[token]
            if not answer.done():
                answer.set_result(None)

    def _cut_off(self) -> None:
        """No answer comes any more: the server does not know the inbox's connection after a reconnect."""
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_result(None)
