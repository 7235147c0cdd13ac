"""Questions on one connection and their answers, which all come to one subject.

nats-py's `request` makes random bytes, a timer, a dict of the headers and a task's turn for each question. Here a
question costs a future and an entry in a dict. One timer is enough, since all wait equally long: whoever has asked
first gives up first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from nats import errors as nats_errors

from tidegate_common.bus.wire.client import BusClient
from tidegate_common.bus.wire.headers import NO_FIELDS
from tidegate_common.errors import TooLarge

T = TypeVar("T")


class Collector(Protocol):
    """Takes all that comes for one question. Called from inside the read of the connection; no call may raise."""

    def take(self, block: bytes, payload: bytes) -> None:
        """A message of the answer."""

    def cut_off(self) -> None:
        """NATS went away: nothing more comes."""


class Inbox(Generic[T]):
    """Sends messages that are answered.

    `read` makes the answer of a payload, in the order in which the server wrote them; the payload is empty if nobody
    listens on the subject. It must not raise.
    """

    def __init__(self, client: BusClient, read: Callable[[bytes], T], wait_seconds: float) -> None:
        self._client = client
        self._read = read
        self._wait = wait_seconds
        self._subject = f"{client.new_inbox()}.".encode()
        self._asked = 0
        self._waiting: dict[bytes, tuple[float, asyncio.Future[T | None]]] = {}
        """By token, in the order of asking: when the waiting ends, and who waits."""
        self._collecting: dict[bytes, Collector] = {}
        """By token: who collects several messages."""
        self._timer: asyncio.TimerHandle | None = None
        client.subscribe_direct(f"{self._subject.decode()}*", self._take)

    def ask(self, subject: str, payload: bytes, block: bytes = NO_FIELDS) -> asyncio.Future[T | None]:
        """Sends a message with the header block `block`, at once and after what was asked before.

        The future's result is the answer. It is None if NATS is away (then nothing was sent), if NATS went away
        meanwhile, and if no answer came in time. The future raises TooLarge, and nothing was sent, if the message is
        more than NATS takes now.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T | None] = loop.create_future()
        if not self._client.is_connected:
            # Never into the client's buffer: it would be sent after the caller was told that it was refused.
            answer.set_result(None)
            return answer
        token = self._token()
        until = loop.time() + self._wait
        try:
            self._send(subject, token, block, payload)
        except TooLarge as error:
            answer.set_exception(error)
            return answer
        self._waiting[token] = until, answer
        if self._timer is None:
            self._timer = loop.call_at(until, self._give_up)
        return answer

    @contextmanager
    def collect(self, subject: str, payload: bytes, collector: Collector) -> Iterator[None]:
        """Sends a question that several messages answer. `collector` gets them until the block is left.

        NATS has to be there. Raises TooLarge, and nothing was sent.
        """
        token = self._token()
        self._collecting[token] = collector
        try:
            self._send(subject, token, NO_FIELDS, payload)
            yield
        finally:
            # No token comes twice, so what is still on its way for this one finds nobody.
            self._collecting.pop(token, None)

    def cut_off(self) -> None:
        """No answer comes any more: the server that was asked does not know the next connection.

        But the rest of an answer may come by it, without what was lost, since the inbox is subscribed to again.
        """
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_result(None)
        collecting, self._collecting = self._collecting, {}
        for collector in collecting.values():
            collector.cut_off()

    def _token(self) -> bytes:
        self._asked += 1
        return b"%d" % self._asked

    def _send(self, subject: str, token: bytes, block: bytes, payload: bytes) -> None:
        """Raises TooLarge."""
        try:
            self._client.request_direct(subject, self._subject + token, block, payload)
        except nats_errors.MaxPayloadError:
            raise TooLarge("the message", max(0, self._client.max_payload - len(block))) from None
        except nats_errors.BadSubjectError:
            raise TooLarge("the message's subject", self._client.limits.line) from None

    def _take(self, subject: bytes, block: bytes, payload: bytes) -> None:
        token = subject[len(self._subject) :]
        if (collector := self._collecting.get(token)) is not None:
            collector.take(block, payload)
            return
        found = self._read(payload)
        waiting = self._waiting.pop(token, None)
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
