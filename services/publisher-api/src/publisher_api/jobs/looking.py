"""What is known of a job, and what it has answered so far."""

from __future__ import annotations

import re

from tidegate_common.bus.answers import read_answer
from tidegate_common.bus.history import History
from tidegate_common.bus.jobs import JobStates
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import JobState
from tidegate_common.errors import NotFound

NOT_SHOWN = ("owner", "holder")
"""Fields of a record that are the services' own."""

_JOB_ID = re.compile(r"[0-9a-f]{32}")


def checked(job_id: str) -> str:
    """Raises NotFound for what can't be a job's id."""
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound("a job's id is 32 hexadecimal digits")
    return job_id


class Looking:
    """Reads records, and answers from the stream."""

    def __init__(self, states: JobStates, history: History) -> None:
        self._states = states
        self._history = history

    async def at(self, job_id: str) -> tuple[JobState, Answer]:
        """The job's record, and its answer as one document. Raises NotFound, BrokerUnavailable."""
        state = await self._states.get(checked(job_id))
        return state, await read_answer(self._history, job_id, state.tail, state.start, state.end)
