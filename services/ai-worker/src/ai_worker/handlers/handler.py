"""What a handler is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol, runtime_checkable

from opentelemetry.context import Context

from ai_worker.models.model import ChatRequest
from ai_worker.models.traced import Call, TracedModel
from ai_worker.pieces import Piece
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import ChatMessage, Usage


class Work:
    """One attempt at a job. A handler that opens a span puts its context into `trace`: the events carry it."""

    def __init__(self, job_id: str, attempt: int, trace: Context) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.trace = trace
        self.earlier: Answer | None = None
        """What an earlier attempt's worker had stored before it died, for a handler that goes on from there."""
        self.calls: list[Call] = []
        """Of the model, in this attempt."""
        self.max_tokens: int | None = None
        """Of each answer of the model: whoever has asked may have no more."""
        self._model: TracedModel | None = None

    @property
    def used(self) -> Usage | None:
        """What the calls of the model have used so far; None if there was none."""
        return sum((call.usage for call in self.calls), Usage()) if self.calls else None

    def give_model(self, model: TracedModel) -> None:
        """What `ask` asks."""
        self._model = model

    async def ask(self, prompt: str, *, max_tokens: int | None = None) -> AsyncGenerator[Piece]:
        """The worker's model's answer to `prompt`, in a span of its own. Raises JobError."""
        assert self._model is not None, "a worker gives each job its model"
        limit = self._model.limit(max_tokens)
        request = ChatRequest(messages=[ChatMessage("user", prompt)], model=self._model.default, max_tokens=limit)
        async with aclosing(self._model.ask(request, self)) as answer:
            async for piece in answer:
                yield piece


class Handler(Protocol):
    def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        """The answer's pieces, `Finish` last; closed early if the job is cancelled. Raises JobError."""


@runtime_checkable
class ResumableHandler(Protocol):
    """A handler that can go on from what is stored; one that can't starts again, after an `ai_restart`."""

    def continues(self, params: dict[str, Any], earlier: Answer) -> bool:
        """Whether it yields only what follows on `earlier` when it finds that in `Work.earlier`."""


Handlers = Mapping[str, Handler]
"""By the kind of job."""
