"""Knows what models there are, and tells gateways. The workers share the question: one of them answers."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from ai_worker.job_errors import JobError
from ai_worker.models.model import ChatModel
from ai_worker.models.traced import OTHER
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.responder import Responder
from tidegate_common.contract.jobs import Models
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
"""A backend is asked for its models no more often."""

QUEUE = "workers"

MOST = 1_000
"""Models that are told, and that may be a metric's label."""


class Catalogue:
    """Answers `Subjects.models` with `Models`."""

    def __init__(self, model: ChatModel, default: str) -> None:
        self._model = model
        self._default = default
        self._known: list[str] = []
        self._asked = float("-inf")
        self._silent = Trouble(log, "the backend does not say what models it has", "the backend says its models again")
        self._asking: asyncio.Task[None] | None = None
        self._responder: Responder | None = None

    async def serve(self, bus: Bus) -> None:
        """From now on."""
        self._responder = Responder(bus.subjects.models, self._answer)
        await self._responder.serve(bus, QUEUE)
        self._look()

    def label(self, model: str) -> str:
        """`model` as a metric may name it: askers may name any, of which only those count that are announced."""
        if model and (model == self._default or model in self._known):
            return model
        self._look()
        return OTHER

    async def aclose(self) -> None:
        if self._asking is not None:
            await end([self._asking])
        if self._responder is not None:
            await self._responder.aclose()

    def _look(self) -> None:
        """Asks the backend beside what goes on, unless it was asked just now."""
        late = time.monotonic() - self._asked > KEEP_SECONDS
        if late and (self._asking is None or self._asking.done()):
            self._asking = spawn(self._ask(), "the question for the models")

    async def _ask(self) -> None:
        if time.monotonic() - self._asked > KEEP_SECONDS:
            try:
                self._known = (await self._model.models())[:MOST]
                self._silent.over()
            except JobError as error:
                self._silent.note(error)
            self._asked = time.monotonic()

    async def _answer(self, _: bytes) -> bytes:
        await self._ask()
        default = self._default or (self._known[0] if self._known else "")
        models = self._known or ([default] if default else [])
        return msgspec.json.encode(Models(models=models, default=default))
