"""Reads what is known of a job, and what it has answered so far."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import Job, JobState

NOT_SHOWN = frozenset({"owner", "holder", "request", "revision"})
"""Fields of a record, and of a job as it was queued, that are the services' own: an owner may be an address."""


def shown(told: JobState | Job) -> dict[str, Any]:
    """What whoever asks for it is shown."""
    return {name: value for name, value in msgspec.to_builtins(told).items() if name not in NOT_SHOWN}


class JobLookup:
    """Reads records, and answers from the stream."""

    def __init__(self, states: JobRecords, history: History) -> None:
        self._states = states
        self._history = history

    async def find(self, job_id: str) -> tuple[JobState, Answer]:
        """The job's record, and its answer as one document. Raises NotFound, BrokerUnavailable."""
        state = await self._states.get(job_id)
        return state, await read_answer(self._history, job_id, state.tail, state.start, state.end)
