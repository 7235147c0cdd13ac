"""What the worker asks of a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from ai_worker.pieces import Piece, Used
from tidegate_common.contract.jobs import ChatMessage


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `model` is empty if the backend is to choose."""

    messages: list[ChatMessage]
    model: str
    max_tokens: int | None = None
    """Of a whole answer, what there is already included, as far as the backend can tell. None if nobody has named a
    limit: none is sent then."""
    temperature: float | None = None
    n: int = 1
    top_p: float | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    prefix: str = ""
    """The beginning of the answer, which is there already: only what follows is wanted."""


class ChatModel(Protocol):
    """A source of answers. `provider` is its name among the GenAI conventions."""

    provider: str

    most: int | None
    """Tokens of an answer for which nobody has named a limit; None if the backend knows an end of its own."""

    @property
    def continues(self) -> bool:
        """Whether it can go on from a `prefix`."""

    async def start(self) -> str:
        """Makes it ready; gives the model for requests that name none. Raises Unavailable."""

    async def models(self) -> list[str]:
        """What requests may name; empty if the backend does not say. Raises JobError."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Used]:
        """The answer, `Finish` last; with several candidates, `CandidateEnd` after each, and `Used` wherever more
        is known of that. Closing the generator stops the model. Raises JobError."""

    async def aclose(self) -> None:
        """Gives back what `start` took."""
