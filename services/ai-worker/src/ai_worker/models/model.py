"""What the worker asks of a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from ai_worker.pieces import Piece
from tidegate_common.contract.jobs import ChatMessage


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `model` is empty where the backend is to choose."""

    messages: list[ChatMessage]
    model: str
    max_tokens: int
    temperature: float | None = None


class ChatModel(Protocol):
    """A source of answers. `provider` is its name among the GenAI conventions."""

    provider: str

    async def start(self) -> str:
        """Makes it ready; gives the model for requests that name none. Raises Unavailable."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece]:
        """The answer, `Finish` last. Closing the generator stops the model. Raises JobError."""

    async def aclose(self) -> None:
        """Gives back what `start` took."""
