"""Answers what other processes ask, on one subject."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg

from tidegate_common.bus.connection import Bus
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

_UNANSWERED = Trouble(log, "a question of another process was not answered")


class Responder:
    """Answers questions with what `reply` makes of them, one after the other. An answer has a byte at least."""

    def __init__(self, subject: str, reply: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._subject = subject
        self._reply = reply
        self._subscription: Any = None

    async def serve(self, bus: Bus, group: str = "") -> None:
        """Answers from now on, until it or the connection is closed. Of those in one `group` one alone answers."""
        self._subscription = await bus.client.subscribe(self._subject, queue=group, cb=self._answer)

    async def aclose(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats_errors.Error, OSError):  # the connection is gone, and this with it
                await subscription.unsubscribe()

    async def _answer(self, question: Msg) -> None:
        try:
            await question.respond(await self._reply(question.data))
        except nats_errors.Error as error:
            _UNANSWERED.note(error, fields={"subject": self._subject})
