"""For those who write handlers of their own: all that they need, under names that stay.

A handler is an async generator function `handler(work, params)` that yields pieces, `Finish` last (docs/ai.md).
"""

from ai_worker.handlers.handler import Work
from ai_worker.job_errors import BackendFailed, InvalidParams, JobError
from ai_worker.pieces import Artifact, CandidateEnd, Finish, Piece, Progress, Reasoning, Segment, Text
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import Usage

__all__ = [
    "Answer",
    "Artifact",
    "BackendFailed",
    "CandidateEnd",
    "Finish",
    "InvalidParams",
    "JobError",
    "Piece",
    "Progress",
    "Reasoning",
    "Segment",
    "Text",
    "Usage",
    "Work",
]
