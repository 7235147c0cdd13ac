"""Jobs and what a handler's answers look like on the wire.

New fields have defaults: a process may be one release ahead of another. Times are Unix seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job has ended and its record will not change any more."""
        return self in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)


class Usage(msgspec.Struct, frozen=True):
    """Tokens counted by the backend; OpenAI's names."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the work queue: `tail` addresses who asked, `params` are the handler's own."""

    job_id: str
    kind: str
    tail: str
    params: dict[str, Any]
    created: float


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job's record in the KV bucket. `cancel` asks for cancelling, also before a worker has taken the job."""

    job_id: str
    kind: str
    status: JobStatus
    created: float
    updated: float
    trace_id: str = ""
    attempt: int = 0
    cancel: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation; OpenAI's names."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatParams(msgspec.Struct, frozen=True, kw_only=True):
    """`params` of a job of the kind `chat`."""

    messages: list[ChatMessage]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    n: int = 1


class AiResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Data of `ai_response` and `ai_reasoning`: `index` counts a job's pieces from 0 without holes."""

    job_id: str
    index: int
    content: str
    done: bool = False
    candidate: int = 0


class AiDone(msgspec.Struct, frozen=True, kw_only=True):
    """Data of the last `ai_response` of a job."""

    job_id: str
    index: int
    finish_reason: str
    usage: Usage
    content: str = ""
    done: bool = True
    candidate: int = 0


class AiRestart(msgspec.Struct, frozen=True, kw_only=True):
    """Data of `ai_restart`: what was shown so far is void, attempt `attempt` starts again."""

    job_id: str
    attempt: int


class AiError(msgspec.Struct, frozen=True, kw_only=True):
    """Data of `ai_error`, the last event of a job that failed: a short code and a text for people."""

    job_id: str
    code: str
    message: str
    done: bool = True
