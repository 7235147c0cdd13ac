"""`GET /v1/models`: what the workers say that they can be asked with."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from gateway.openai.api_errors import no_such_model
from tidegate_common.bus.connection import Bus
from tidegate_common.contract.jobs import CHAT, Models
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import Unavailable

ASK_SECONDS = 1.0
KEEP_SECONDS = 5.0
"""An answer is good for so long."""

_MODELS = msgspec.json.Decoder(Models)


class ModelList:
    """The models, as any one worker names them. One question at a time is asked, however many want to know."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._created = int(time.time())
        self._names: list[str] = []
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def all(self, principal: Principal) -> list[dict[str, Any]]:
        """OpenAI's model objects, of those that `principal` may use.

        Raises Unavailable if no worker answers; Forbidden, Unauthenticated for whoever may use none at all.
        """
        principal.check_job(CHAT)
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now >= self._until:
                self._names = await self._ask()
                self._until = now + KEEP_SECONDS
        return [self._object(name) for name in self._names if may_use(principal, name)]

    async def one(self, principal: Principal, name: str) -> dict[str, Any]:
        """As `all`. Raises ApiError if there is no such model."""
        for found in await self.all(principal):
            if found["id"] == name:
                return found
        raise no_such_model(name)

    def _object(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "tidegate"}

    async def _ask(self) -> list[str]:
        try:
            found = _MODELS.decode(await self._bus.ask(self._bus.subjects.models, seconds=ASK_SECONDS))
        except UNREADABLE as error:  # nothing, if no worker answers
            raise Unavailable("no worker says what models there are") from error
        return list(dict.fromkeys([*([found.default] if found.default else []), *found.models]))


def may_use(principal: Principal, model: str) -> bool:
    """Whether its jobs may name `model`, if it may have any."""
    rights = principal.jobs
    return rights is None or rights.models is None or model in rights.models
