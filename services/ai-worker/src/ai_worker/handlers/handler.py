"""What a handler is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from opentelemetry.context import Context

from ai_worker.pieces import Piece


class Work:
    """One job while it runs. A handler that opens a span puts its context into `trace`: the events carry it."""

    def __init__(self, job_id: str, attempt: int, trace: Context) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.trace = trace


class Handler(Protocol):
    def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        """The answer, `Finish` last; closed early where the job is cancelled. Raises JobError."""


Handlers = Mapping[str, Handler]
"""By the kind of job."""
