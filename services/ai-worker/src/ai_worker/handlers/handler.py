"""What a handler is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, runtime_checkable

from opentelemetry.context import Context

from ai_worker.pieces import Piece
from tidegate_common.contract.answers import Answer


class Work:
    """One attempt at a job. A handler that opens a span puts its context into `trace`: the events carry it."""

    def __init__(self, job_id: str, attempt: int, trace: Context) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.trace = trace
        self.earlier: Answer | None = None
        """What an earlier attempt's worker had stored before it died, for a handler that goes on from there."""


class Handler(Protocol):
    def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        """The answer's pieces, `Finish` last; closed early where the job is cancelled. Raises JobError."""


@runtime_checkable
class Continuing(Protocol):
    """A handler that can go on from what is stored; one that can't starts again, after an `ai_restart`."""

    def continues(self, params: dict[str, Any], earlier: Answer) -> bool:
        """Whether it yields only what follows on `earlier` when it finds that in `Work.earlier`."""


Handlers = Mapping[str, Handler]
"""By the kind of job."""
