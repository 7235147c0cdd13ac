"""Jobs: what is asked for, and the record of how far it has got. What the answers look like is in answers.py.

New fields have defaults: a process may be one release ahead of another. Times are Unix seconds.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Literal

import msgspec

CHAT = "chat"
"""The kind of jobs that answer a conversation: their `params` are `ChatParams`."""


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
    """Tokens as the backend counts them, or an estimate where it has not said (yet); OpenAI's names."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, more: Usage) -> Usage:
        return Usage(self.prompt_tokens + more.prompt_tokens, self.completion_tokens + more.completion_tokens)


class OnDisconnect(StrEnum):
    """What becomes of a job when nobody listens to it any more."""

    CONTINUE = "continue"
    CANCEL = "cancel"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the work queue: `tail` addresses who asked, `params` are the handler's own."""

    job_id: str
    kind: str
    tail: str
    params: dict[str, Any]
    created: float
    """As its record has it: a message and a record of other times are not of one job."""
    owner: str = ""
    """Whose share of the workers it takes; that of `tail` where empty."""
    start: str = ""
    """Event id of the stream's place when the job was made: all of its events come after it."""
    deadline: float | None = None
    """When it has to be done."""
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE
    grace_seconds: float = 10.0
    """How long nobody may listen before `on_disconnect` counts: for clients that come back."""
    request: str = ""
    """A hash of what was asked for, where that may be asked for again under an `Idempotency-Key`."""
    revision: int = 0
    """Of the record, as it was made for this job: its first worker need not read it."""


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job's record in the KV bucket, changed by compare-and-set alone.

    `queued` → `running` (an attempt has it) → `done`, `failed` or `cancelled`; back to `queued` where a worker hands
    it back. Who brings it to its end writes the job's last event, so that there is one.
    """

    job_id: str
    kind: str
    status: JobStatus
    created: float
    updated: float
    trace_id: str = ""
    tail: str = ""
    """Whom the job's events address."""
    owner: str = ""
    """As `Job.owner`. Not shown to who asks for the record: it may be an address."""
    start: str = ""
    """As `Job.start`."""
    request: str = ""
    """As `Job.request`: under the same key nothing else is asked for. Empty: nobody knows what was."""
    end: str = ""
    """Event id of the job's last event, once that is stored."""
    attempt: int = 0
    """Of the worker that has it, or had it last: counts all that began it."""
    holder: str = ""
    """Names the attempt at work, in its process: what it has written itself it knows by that, and can be asked."""
    failures: int = 0
    """Attempts that ended without a word: their workers died, or lost NATS."""
    pieces: int = 0
    """Events of the answer that are stored, as of the last time that a worker gave the job back."""
    cancel: bool = False
    """It is to be cancelled; whoever has it, or gets it, sees to that."""
    finish_reason: str | None = None
    model: str = ""
    """That answered."""
    usage: Usage | None = None
    error: str | None = None
    """Code and text, with a colon between."""


def request_hash(*asked: Any) -> str:
    """A hash of `asked`, whatever the order of the fields in its objects: the same for the same request."""
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:32]


class DeadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed through no fault of its own, kept to be tried again by hand."""

    job: Job
    error: str
    attempts: int
    failed: float
    trace_id: str = ""


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's answer to the question what it can be asked with."""

    models: list[str] = []
    default: str = ""
    """For jobs that name none."""


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation; OpenAI's names."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatParams(msgspec.Struct, frozen=True, kw_only=True):
    """`params` of a chat."""

    messages: list[ChatMessage]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    n: int = 1
    """Candidates."""
    top_p: float | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
