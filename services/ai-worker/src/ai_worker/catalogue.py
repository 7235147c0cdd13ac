"""Tells gateways what models there are. The workers share the question: one of them answers."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg

from ai_worker.errors import JobError
from ai_worker.models.model import ChatModel
from tidegate_common.bus.connection import Bus
from tidegate_common.contract.jobs import Models
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
"""A backend is asked for its models no more often."""

QUEUE = "workers"


class Catalogue:
    """Answers `Subjects.models` with `Models`."""

    def __init__(self, model: ChatModel, default: str) -> None:
        self._model = model
        self._default = default
        self._known: list[str] = []
        self._asked = float("-inf")
        self._subscription: Any = None
        self._silent = Trouble(log, "the backend does not say what models it has", "the backend says its models again")
        self._unanswered = Trouble(log, "a question for the models was not answered")

    async def serve(self, bus: Bus) -> Catalogue:
        """From now on. Gives itself."""
        self._subscription = await bus.client.subscribe(bus.subjects.models, queue=QUEUE, cb=self._answer)
        return self

    async def aclose(self) -> None:
        try:
            await self._subscription.unsubscribe()
        except nats_errors.Error as error:
            log.debug("the catalogue was not closed: %s", error)

    async def _answer(self, question: Msg) -> None:
        if time.monotonic() - self._asked > KEEP_SECONDS:
            try:
                self._known = await self._model.models()
                self._silent.over()
            except JobError as error:
                self._silent.note(error)
            self._asked = time.monotonic()
        default = self._default or (self._known[0] if self._known else "")
        models = self._known or ([default] if default else [])
        try:
            await question.respond(msgspec.json.encode(Models(models=models, default=default)))
        except nats_errors.Error as error:
            self._unanswered.note(error)
