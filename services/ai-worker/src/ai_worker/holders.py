"""Asks whether the worker that has a job still runs it.

That a job is given out again says only that NATS has heard nothing for a while. After an outage of NATS that is so of
every job, though its worker may be there and hold all that it has not been able to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from secrets import token_hex

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.responder import Responder

ASK_SECONDS = 1.0
"""How long an answer is waited for: a process that is paused gives none."""

SETTLE_SECONDS = 2.5
"""After NATS was away, others may take so long to come back: until then silence says nothing."""

AGAIN_SECONDS = 0.2

YES, NO = b"+", b"-"


class Holders:
    """Answers for the attempts of this process, and asks others for theirs. A holder's name is one attempt's."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._process, self._count = token_hex(8), count(1)
        self._held: set[str] = set()
        self._back = float("-inf")
        bus.on_reconnect.append(self._come_back)

    async def serve(self) -> None:
        """Answers from now on, until the connection is closed: also while the process drains."""
        await Responder(self._bus.subjects.holder(self._process), self._answer).serve(self._bus)

    def new(self) -> str:
        """A name for one more attempt."""
        return f"{self._process}-{next(self._count)}"

    @contextmanager
    def holding(self, holder: str) -> Iterator[None]:
        """Inside, `holder` runs its job."""
        self._held.add(holder)
        try:
            yield
        finally:
            self._held.discard(holder)

    async def alive(self, holder: str) -> bool:
        """Whether `holder` runs its job. Raises BrokerUnavailable.

        Nobody answers for a process that is gone, and a process that runs says which of its attempts are over. If
        NATS was away just now, a process that does not answer may be on its way back: it is asked again for a while.
        """
        loop = asyncio.get_running_loop()
        while True:
            answer = await self._bus.ask(
                self._bus.subjects.holder(holder.partition("-")[0]), holder.encode(), ASK_SECONDS
            )
            if answer or loop.time() - self._back >= SETTLE_SECONDS:
                return answer == YES
            await asyncio.sleep(AGAIN_SECONDS)

    async def _answer(self, question: bytes) -> bytes:
        return YES if question.decode(errors="replace") in self._held else NO

    async def _come_back(self) -> None:
        self._back = asyncio.get_running_loop().time()
